"""The whole error vocabulary, in three families.

`Refused` is an answer to a caller: what the table says about status and types, `wire/errors.py` turns into
bytes. `FaultError` and its children are things that went wrong around us (store, journal, upstream): each
says whether the attempt may have had an effect. `InvariantBrokenError` means our own reasoning failed: money
work stops.
"""

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True, eq=False)  # equal rows stay members of their own in the enum below
class RefusalKind:
    """One row of the error table: HTTP status, OpenAI type and code, Anthropic type."""

    status: int
    openai_type: str
    openai_code: str | None
    anthropic_type: str


class Refusal(Enum):
    """Every way an exchange is refused, in the order in which the checks are made."""

    METHOD = RefusalKind(405, "invalid_request_error", None, "invalid_request_error")
    ROUTE = RefusalKind(404, "invalid_request_error", "unknown_route", "not_found_error")
    UNSUPPORTED = RefusalKind(400, "invalid_request_error", "unsupported", "invalid_request_error")
    DRAINING = RefusalKind(503, "server_error", "shutting_down", "api_error")
    OVERLOADED = RefusalKind(503, "server_error", "overloaded", "overloaded_error")
    KEY_MISSING = RefusalKind(401, "invalid_request_error", None, "authentication_error")
    KEY_AMBIGUOUS = RefusalKind(
        400, "invalid_request_error", "ambiguous_credentials", "invalid_request_error"
    )
    KEY_UNKNOWN = RefusalKind(401, "authentication_error", None, "authentication_error")
    KEY_REVOKED = RefusalKind(401, "authentication_error", None, "authentication_error")
    RATE_LIMITED = RefusalKind(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error")
    BODY_TOO_LARGE = RefusalKind(413, "invalid_request_error", "body_too_large", "request_too_large")
    BODY_ENCODED = RefusalKind(415, "invalid_request_error", "content_encoding", "invalid_request_error")
    BODY_TYPE = RefusalKind(415, "invalid_request_error", "content_type", "invalid_request_error")
    BODY_TIMEOUT = RefusalKind(408, "invalid_request_error", "body_timeout", "invalid_request_error")
    BODY_INVALID = RefusalKind(400, "invalid_request_error", None, "invalid_request_error")
    MODEL_UNKNOWN = RefusalKind(404, "invalid_request_error", None, "invalid_request_error")
    MODEL_NOT_ALLOWED = RefusalKind(403, "permission_error", "model_not_allowed", "permission_error")
    UNPRICED_FIELD = RefusalKind(400, "invalid_request_error", "unpriced_field", "invalid_request_error")
    CREDITS_EXPIRED = RefusalKind(402, "insufficient_quota", "credits_expired", "credits_expired")
    POOL_EMPTY = RefusalKind(402, "insufficient_quota", "insufficient_credits", "insufficient_credits")
    BALANCE_SHORT = RefusalKind(402, "insufficient_balance", None, "insufficient_balance")
    ACCOUNT_PARKED = RefusalKind(402, "insufficient_quota", "account_parked", "insufficient_credits")
    STORE_UNAVAILABLE = RefusalKind(503, "server_error", "store_unavailable", "api_error")
    JOURNAL_UNAVAILABLE = RefusalKind(503, "server_error", "journal_unavailable", "api_error")
    UPSTREAM_FAILED = RefusalKind(502, "upstream_error", None, "api_error")
    UPSTREAM_TIMEOUT = RefusalKind(504, "upstream_error", "upstream_timeout", "api_error")
    INTERNAL = RefusalKind(500, "server_error", None, "api_error")


class FareboxError(Exception):
    """Root of everything Farebox raises itself."""


class Refused(FareboxError):  # noqa: N818 - a refusal is an answer, not a fault
    """An exchange is answered with an error of our own; `details` become members of the error object."""

    def __init__(
        self,
        refusal: Refusal,
        message: str,
        *,
        retry_after_s: int | None = None,
        details: dict[str, object] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.message = message
        self.retry_after_s = retry_after_s
        self.details = details or {}
        self.close = close


class UsageError(FareboxError):
    """A command was called with something it cannot work with; the message says what to do."""


class FaultError(FareboxError):
    """Something around us failed."""


class StoreDownError(FaultError):
    """The store did not take the operation; nothing was changed."""


class StoreConflictError(FaultError):
    """A write conflict: nothing was changed, the same operation may be tried again."""


class StoreUnknownError(FaultError):
    """The outcome of a store operation is unknown: it may or may not have happened."""


class StoreRefusedError(FaultError):
    """The store cannot be used as it is (schema, copy, transactions); the message says what to do."""


class JournalError(FaultError):
    """The journal cannot be written or read."""


class JournalFullError(JournalError):
    """No room for a new exchange; room for those already open is kept."""


class JournalLockedError(JournalError):
    """Another process holds this journal directory."""


@dataclass(eq=False)
class JournalDamagedError(JournalError):
    """Bytes at or before a position known synced do not check out: refuse to start, keep a copy."""

    path: str
    offset: int
    reason: str
    advice: str = field(
        default="keep a copy of the directory, restore it, or abandon it with `farebox lease release`"
    )

    def __str__(self) -> str:
        return f"journal damaged: {self.path} at byte {self.offset}: {self.reason}; {self.advice}"


class UpstreamError(FaultError):
    """The upstream side of an exchange failed; `sent` tells whether any byte of the request may have left."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UpstreamConnectError(UpstreamError):
    """No connection: refused, unresolved, TLS failed or timed out. Nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class UpstreamTimeoutError(UpstreamError):
    """A deadline passed; `phase` is first_byte, idle or total."""

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message, sent=True)
        self.phase = phase


class UpstreamBrokenError(UpstreamError):
    """The upstream closed early or broke HTTP framing."""


class InvariantBrokenError(FareboxError):
    """A fact that must hold does not: stop money work and say which."""
