"""verify compares payments with ledger rows and names the one that somebody tampered with."""

import pytest

from farebox.credits.payments import refuse
from farebox.writer.verify import verify


@pytest.fixture
async def books(shop):
    """Alice bought twice, once with a bonus; a short payment was refused, another waits."""
    await shop.user("alice")
    await shop.user("bob")
    await shop.pays(await shop.order("20"))
    shop.opens_with(
        promotions=[
            {"name": "p", "begins": "2020-01-01T00:00Z", "ends": "2090-01-01T00:00Z", "percent": "10"}
        ]
    )
    await shop.pays(await shop.order("30"))
    await shop.pays(await shop.order("40"), amount="1")
    await shop.pays(await shop.order("40"), amount="2")
    await refuse(shop.store, "sepay:3", "test", "no", shop.now)
    await shop.returns("sepay:1", "50000")
    return shop.store


async def differences(store):
    return "\n".join((await verify(store, None)).differences)


async def test_honest_books_have_no_differences(books):
    report = await verify(books, None)
    assert (report.differences, report.payments) == ([], 4)
    assert "4 payments compared" in "\n".join(report.lines())


async def test_a_payment_that_says_more_than_was_booked_is_named(books, tamper):
    document = dict((await books.record("payment", "sepay:2")).document)
    document["rows"][1]["credits"] = "33"
    tamper.payment_document("sepay:2", document)
    found = await differences(books)
    assert "row alice:earned_bonus:sepay:2:creditsNew: 3 USD, its payment says 33" in found


async def test_a_payment_whose_row_is_gone_is_named(books, tamper):
    tamper.remove_row("earned_purchase", "sepay:2")
    found = await differences(books)
    assert "row alice:earned_purchase:sepay:2:creditsNew is missing" in found


async def test_a_payment_made_up_is_named(books, tamper):
    tamper.payment_status("sepay:4", "credited")
    document = dict((await books.record("payment", "sepay:2")).document)
    tamper.payment_document("sepay:4", document)
    assert "payment sepay:4 of alice: credited, but row" in await differences(books)


@pytest.mark.parametrize("status", ["refused", "review"])
async def test_a_row_of_a_payment_that_credits_nothing_is_named(books, tamper, status):
    tamper.payment_status("sepay:2", status)
    found = await differences(books)
    assert f"row alice:earned_purchase:sepay:2:creditsNew: its payment is {status}" in found


async def test_a_row_without_a_payment_is_named_even_where_the_sums_are_right(books, tamper):
    tamper.remove_payment("sepay:2")
    assert "there is no payment sepay:2" in await differences(books)


async def test_lots_pools_and_rows_are_compared_too(books, tamper):
    account = await books.account("alice")
    tamper.raise_lot("alice", next(lot.lot for lot in account.lots if lot.left_pico))
    assert "M1 alice" in await differences(books)
