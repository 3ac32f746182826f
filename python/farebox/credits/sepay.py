"""Bank transfers as a SePay-style webhook tells them: `Authorization: Apikey KEY`, one JSON object.

Format: developer.sepay.vn, "webhooks": id, gateway, transactionDate ("2026-01-31 14:02:37", the bank's local
time), accountNumber, subAccount, transferType in/out, transferAmount, content, description, referenceCode.
The order code stands anywhere in content or description. What is kept of a transfer are its bank reference
and gateway, not its text.
"""

import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

from farebox.base import limits
from farebox.base.redaction import Secret
from farebox.config.credits import Sepay
from farebox.credits.notices import Irrelevant, MoneyReceived, Notice, WebhookRefusedError
from farebox.credits.orders import find_code

_EARLY_MS: Final = 300_000
"""A bank's clock may be so much ahead of ours."""
_TEXT_MAX: Final = 2000


class SepayProvider:
    """Checks and reads deliveries for one configured account."""

    def __init__(self, settings: Sepay, api_key: Secret, order_prefix: str) -> None:
        self._settings = settings
        self._expected = f"Apikey {api_key.reveal()}".encode()
        self._order_prefix = order_prefix

    def read(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        """See `Provider`."""
        given = headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._expected):
            raise WebhookRefusedError(401, "unauthorized", "the API key is missing or wrong")
        transfer = _object(body)
        if transfer.get("transferType") == "out":
            return Irrelevant("money that left the account")
        if transfer.get("transferType") != "in":
            raise WebhookRefusedError(422, "invalid", "transferType must be in or out")
        self._check_account(transfer)
        return MoneyReceived(
            payment=f"sepay:{_id(transfer.get('id'))}",
            amount=_amount(transfer.get("transferAmount")),
            currency=self._currency(transfer),
            order=find_code(self._order_prefix, _text(transfer, "content"), _text(transfer, "description")),
            at_ms=self._moment_ms(_text(transfer, "transactionDate"), now_ms),
            reference="",
            details={
                "bank_reference": _text(transfer, "referenceCode")[:100],
                "gateway": _text(transfer, "gateway")[:100],
            },
        )

    def _check_account(self, transfer: Mapping[str, Any]) -> None:
        if _text(transfer, "subAccount") != (self._settings.sub_account or ""):
            raise WebhookRefusedError(422, "wrong_account", "the transfer went to another sub-account")
        account = self._settings.account_number
        if account is not None and _text(transfer, "accountNumber") != account:
            raise WebhookRefusedError(422, "wrong_account", "the transfer went to another account")

    def _currency(self, transfer: Mapping[str, Any]) -> str:
        currency = _text(transfer, "currency") or self._settings.currency
        if currency != self._settings.currency:
            raise WebhookRefusedError(422, "unknown_currency", f"not in {self._settings.currency}")
        return currency

    def _moment_ms(self, text: str, now_ms: int) -> int:
        """When the bank says it was; now where it says nothing. A date to come is refused."""
        if not text:
            return now_ms
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise WebhookRefusedError(422, "invalid", "transactionDate is no date") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone(self._settings.utc_offset))
        at_ms = int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
        if at_ms > now_ms + _EARLY_MS:
            raise WebhookRefusedError(422, "stale", "transactionDate lies in the future")
        return at_ms


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise WebhookRefusedError(400, "invalid", "the body is no JSON") from None
    if not isinstance(value, dict):
        raise WebhookRefusedError(400, "invalid", "the body is no JSON object")
    return value


def _no_number(text: str) -> None:
    raise ValueError(text)


def _id(value: object) -> str:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not text or len(text) > 64 or not all(letter.isalnum() or letter in "-_." for letter in text):
        raise WebhookRefusedError(422, "invalid", "id must be a number or a short name")
    return text


def _amount(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise WebhookRefusedError(422, "absurd_amount", "transferAmount must be a number")
    amount = Decimal(value)
    if not amount.is_finite() or not 0 < amount <= limits.payment_amount_max:
        raise WebhookRefusedError(422, "absurd_amount", "transferAmount is no amount anybody pays")
    if amount != round(amount, 4):
        raise WebhookRefusedError(422, "absurd_amount", "transferAmount has too many decimals")
    return amount


def _text(transfer: Mapping[str, Any], name: str) -> str:
    value = transfer.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise WebhookRefusedError(422, "invalid", f"{name} must be a short text")
    return value
