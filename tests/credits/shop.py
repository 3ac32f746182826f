"""A shop for tests: settings, users, orders, and deliveries as the providers' adapters would read them."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from farebox.base.ids import new_lot_id
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.config.credits import CreditsSettings, credits_settings
from farebox.config.credits_document import CreditsEntry
from farebox.config.problems import Problems
from farebox.credits.intake import take
from farebox.credits.moves import Move
from farebox.credits.notices import DisputeChanged, MoneyReceived, MoneyReturned
from farebox.credits.orders import place_order
from farebox.credits.payments import Outcome
from farebox.credits.transfers import perform
from farebox.ledger.conservation import differences
from farebox.store.base import EventResult, Record, Store

NOW = 1_760_000_000_000
DAY = 86_400_000
MINUTE = 60_000
PROMOTION = {
    "name": "always",
    "begins": "2020-01-01T00:00:00Z",
    "ends": "2040-01-01T00:00:00Z",
    "percent": "10",
}
SECTION: dict[str, Any] = {"rates": {"VND": "2500", "USD": "1"}}


def settings(**section: Any) -> CreditsSettings:
    problems = Problems(Path("shop.json"))
    made = credits_settings(CreditsEntry.model_validate({**SECTION, **section}), problems)
    assert problems.errors == []
    return made


class Shop:
    """What a test says happens, at `now`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.settings = settings()
        self.now = NOW
        self.users: set[str] = set()
        self._numbers = 0

    def opens_with(self, **section: Any) -> None:
        self.settings = settings(**section)

    async def user(self, name: str = "alice") -> str:
        assert await self.store.create_user(name, "user", "test", self.now)
        self.users.add(name)
        return name

    async def order(
        self, wanted: str = "20", *, user: str = "alice", currency: str = "", **more: Any
    ) -> Record:
        return await place_order(self.store, self.settings, user, wanted, currency, "test", self.now, **more)

    async def pays(self, order: Record | None = None, /, **told: Any) -> Outcome:
        """A payment arrives; it pays the order exactly unless told otherwise."""
        return await take(self.store, self.settings, self.payment(order, **told), self.now)

    def payment(self, order: Record | None = None, /, **told: Any) -> MoneyReceived:
        self._numbers += 1
        usual = {
            "payment": f"sepay:{self._numbers}",
            "amount": order.document["amount"] if order is not None else "50000",
            "currency": order.document["currency"] if order is not None else "VND",
            "order": order.id if order is not None else "",
            "at_ms": self.now,
        }
        facts = {**usual, **told}
        return MoneyReceived(**{**facts, "amount": Decimal(facts["amount"])})

    async def returns(self, payment: str, returned: str, amount: str = "50000") -> Outcome:
        notice = MoneyReturned(payment, Decimal(returned), Decimal(amount), "VND", self.now)
        return await take(self.store, self.settings, notice, self.now)

    async def disputes(
        self, payment: str, state: str, amount: str = "50000", dispute: str = "dp1"
    ) -> Outcome:
        notice = DisputeChanged(payment, dispute, Decimal(amount), "VND", state, self.now)
        return await take(self.store, self.settings, notice, self.now)

    async def balance(self, pool: str = "creditsNew", user: str = "alice") -> str:
        account = await self.store.account(user)
        assert account is not None
        return usd_from_pico(account.balances.get(pool, 0))

    async def rows(self, user: str = "alice") -> list[tuple[str, str, str]]:
        """(type, pool, USD) of a user's ledger rows, oldest first."""
        found = await self.store.transactions(user, 500)
        return [(row.type, row.pool, usd_from_pico(row.amount_pico)) for row in reversed(found)]

    async def payment_record(self, payment: str = "sepay:1") -> Record:
        found = await self.store.record("payment", payment)
        assert found is not None
        return found

    async def lease(
        self, usd: str, user: str = "alice", wallet: str = "openhands", journal: str = "a" * 16
    ) -> None:
        """A worker takes money of a user, as running exchanges do."""
        await self.store.claim_epoch(journal, 1, "host", self.now)
        amount_pico = pico_from_usd(usd)
        fenced = await self.store.fence(user, journal, 1, [], self.now)
        assert fenced is not None
        grant = await self.store.grant(
            user, wallet, journal, 1, fenced.op, amount_pico, amount_pico, self.now
        )
        assert grant.reason == "", grant
        self.leased = (journal, grant)

    async def come_back(self, user: str = "alice") -> None:
        """The worker gives back what it leased, and claims are collected."""
        journal, grant = self.leased
        await self.store.give_back(user, journal, 1, grant.op, [grant.added[0][0]], self.now)
        await self.collect()

    async def spend(self, usd: str, user: str = "alice") -> None:
        """Take money as an exchange would, for the balance's sake."""
        move = Move("correction", new_lot_id(), user, "creditsNew", -pico_from_usd(usd), "spent", "test")
        assert (await perform(self.store, move, self.now)).result is EventResult.DONE

    async def claims(self, user: str = "alice") -> set[tuple[bool, int]]:
        """(is it on a lot, what it asks for) of a user's claims."""
        account = await self.store.account(user)
        assert account is not None
        return {(claim.lot is not None, claim.amount_pico) for claim in account.claims}

    async def collect(self) -> None:
        """What the writer does with claims, once."""
        for user, claim in await self.store.claims(10):
            await self.store.collect(user, claim.reference, self.now)

    async def sound(self) -> None:
        """M1 and M2 hold for everybody."""
        for user in sorted(self.users):
            snapshot = await self.store.account_with_rows(user)
            assert snapshot is not None
            assert differences(*snapshot) == []
