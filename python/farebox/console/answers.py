"""What the console says when it does not do what was asked: one exception, and a table from errors to it."""

from typing import Final

from farebox.base.errors import (
    FareboxError,
    InvariantBrokenError,
    StoreConflictError,
    StoreDownError,
    StoreRefusedError,
    StoreUnknownError,
    UsageError,
)

_STATUSES: Final[tuple[tuple[type[FareboxError], int, str], ...]] = (
    (UsageError, 400, "invalid"),
    (InvariantBrokenError, 409, "conflict"),
    (StoreDownError, 503, "store_unavailable"),
    (StoreConflictError, 503, "busy"),
    (StoreUnknownError, 503, "outcome_unknown"),
    (StoreRefusedError, 503, "store_unavailable"),
)


class Declined(Exception):  # noqa: N818 - an answer, not a fault
    """A request is answered with an error: HTTP status, a word for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s or (1 if status == 503 else 0)
        self.status = status
        self.code = code
        self.message = message

    def document(self) -> dict[str, object]:
        """The body of the answer."""
        return {"error": {"code": self.code, "message": self.message}}


def declined(error: FareboxError) -> Declined:
    """The answer to an error of ours. What is 503 may be asked again: nothing, or nothing twice, happens."""
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return Declined(status, code, str(error))
    return Declined(500, "internal", "something failed here; it is in the log")
