"""Answers Farebox gives itself: model lists, a key's own balance, health. Pure: facts to JSON."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from farebox.base.records import WALLETS, Account
from farebox.base.units import usd_from_pico
from farebox.ledger.lots import available_pico, remaining_pico

_CREATED_S = 1_735_689_600
_CREATED_TEXT = "2025-01-01T00:00:00Z"


class Listed(Protocol):
    """The part of a model row that a list shows."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def upstream(self) -> str: ...


def openai_model(row: Listed) -> dict[str, object]:
    """One model in OpenAI's shape."""
    return {"id": row.id, "object": "model", "created": _CREATED_S, "owned_by": row.upstream}


def anthropic_model(row: Listed) -> dict[str, object]:
    """One model in Anthropic's shape."""
    return {"type": "model", "id": row.id, "display_name": row.name, "created_at": _CREATED_TEXT}


def openai_models(rows: Iterable[Listed]) -> dict[str, object]:
    """The list in OpenAI's shape."""
    return {"object": "list", "data": [openai_model(row) for row in rows]}


def anthropic_models(rows: Iterable[Listed]) -> dict[str, object]:
    """The list in Anthropic's shape, one page."""
    data = [anthropic_model(row) for row in rows]
    ends = (
        {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
        if data
        else {"first_id": None, "last_id": None}
    )
    return {"data": data, "has_more": False, **ends}


def credits_of(account: Account, now_ms: int) -> dict[str, object]:
    """A user's balances by wallet and pool, as decimal USD strings."""
    wallets: dict[str, Mapping[str, object]] = {}
    for wallet, pools in WALLETS.items():
        remaining = remaining_pico(account, wallet, now_ms)
        available = available_pico(account, wallet, now_ms)
        wallets[wallet] = {
            "remaining": usd_from_pico(remaining),
            "set_aside": usd_from_pico(max(0, remaining - available)),
            "pools": {pool: usd_from_pico(account.balances.get(pool, 0)) for pool in pools},
        }
    return {"object": "credits", "user": account.user, "wallets": wallets}
