"""Short ways to write accounts, lots and settlements down, so that tables of cases stay readable."""

from collections.abc import Mapping, Sequence

from farebox.base.records import POOLS, Account, Claim, LeaseEntry, Lot, LotAmount, Settlement, Transaction

NOW_MS = 1_000
SOON_MS = 2_000
LATER_MS = 3_000
PAST_MS = 1_000
"""An expiry that has just come: a lot is good strictly before its expiry."""


def lot(name: str, left: int, *, leased: int = 0, expires: int | None = None, pool: str = "credits") -> Lot:
    return Lot(name, pool, left, leased, expires, "test")


def account(
    *lots: Lot,
    claims: Sequence[Claim] = (),
    leases: Mapping[str, LeaseEntry] | None = None,
    reserved: Mapping[str, Mapping[str, int]] | None = None,
    seen: Mapping[str, int] | None = None,
) -> Account:
    balances = {pool: sum(one.left_pico for one in lots if one.pool == pool) for pool in POOLS}
    return Account(
        user="alice",
        rev=7,
        is_active=True,
        parked=None,
        balances=balances,
        seen=balances if seen is None else seen,
        lots=lots,
        leases=leases or {},
        reserved=reserved or {},
        claims=tuple(claims),
        wants=frozenset(),
        written_off_pico=0,
    )


def lease(journal: str, *, dead: bool = False, **lots: int) -> dict[str, LeaseEntry]:
    return {journal: LeaseEntry(journal, 1, 1, dead, lots)}


def part(name: str, amount: int, pool: str = "credits") -> LotAmount:
    return LotAmount(name, pool, amount)


def settlement(
    amount: int, *takes: LotAmount, wallet: str = "ohmygpt", quarantine: str = "", exchange: str = "e1"
) -> Settlement:
    return Settlement(
        exchange=exchange,
        user="alice",
        wallet=wallet,
        key="k",
        model="m",
        wire_format="chat",
        price_version=3,
        multiplier="1.05",
        evidence="exact",
        flags=("unsure",),
        counts={"input": 1200, "output": 800},
        others={"small": {"input": 2}},
        input_total=1200,
        variant="",
        amount_pico=amount,
        takes=takes,
        quarantine=quarantine,
        outcome="ok",
        status=200,
        upstream="u",
        upstream_model="m",
        upstream_request="",
        stream=False,
        started_ms=NOW_MS,
        first_byte_ms=0,
        ended_ms=NOW_MS,
    )


def row(
    kind: str, amount: int, *lots: LotAmount, pool: str = "credits", reference: str = "r1"
) -> Transaction:
    return Transaction("alice", kind, reference, pool, amount, lots, "test", NOW_MS)
