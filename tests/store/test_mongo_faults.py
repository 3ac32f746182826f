"""What an error of the driver or the server means: whether anything happened, and whether to ask again.

A write whose answer was lost is never called undone (S05), a refusal says what to mend, and no message holds
the address's password (M11).
"""

from typing import Any

import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    InvalidURI,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from farebox.base.errors import StoreConflictError, StoreDownError, StoreRefusedError, StoreUnknownError
from farebox.store.mongo import faults

WHERE = "mongodb://db.example/farebox"
TRANSIENT = {"errorLabels": ["TransientTransactionError"]}
DOWN, REFUSED, UNKNOWN, CONFLICT = StoreDownError, StoreRefusedError, StoreUnknownError, StoreConflictError


def bulk(*codes: int) -> BulkWriteError:
    """A bulk write some of whose parts failed."""
    return BulkWriteError({"writeErrors": [{"code": code} for code in codes]})


@pytest.mark.parametrize(
    ("error", "read", "write", "says"),
    [
        (
            ServerSelectionTimeoutError("no host (configured timeouts: 5 s), Timeout: 5s"),
            DOWN,
            DOWN,
            "(no host)",
        ),
        (WaitQueueTimeoutError("all connections busy"), DOWN, DOWN, "all connections busy"),
        (InvalidURI("bad"), REFUSED, REFUSED, "bad"),
        (ConfigurationError("no such option"), REFUSED, REFUSED, "no such option"),
        (NotPrimaryError("stepped down"), DOWN, DOWN, "the primary is changing"),
        (OperationFailure("stepped down", 10107), DOWN, DOWN, "the primary is changing"),
        (AutoReconnect("connection closed"), DOWN, UNKNOWN, "connection closed"),
        (ConnectionFailure("reset"), DOWN, UNKNOWN, "reset"),
        (InvalidOperation("after close"), DOWN, DOWN, "the store is closed"),
        (PyMongoError("anything else"), DOWN, DOWN, "anything else"),
        (OperationFailure("not allowed", 13), REFUSED, REFUSED, "check the user, password and rights"),
        (OperationFailure("Transaction numbers need a replica set", 20), REFUSED, REFUSED, "--replSet rs0"),
        (OperationFailure("another illegal operation", 20), DOWN, DOWN, "another illegal operation"),
        (WriteConcernError("not replicated in time", 64), DOWN, UNKNOWN, "not replicated in time"),
        (ExecutionTimeout("too slow", 50), DOWN, UNKNOWN, "too slow"),
        (OperationFailure("conflict", 112), CONFLICT, CONFLICT, "conflict"),
        (OperationFailure("gone", 251), CONFLICT, CONFLICT, "gone"),
        (OperationFailure("again", 1, TRANSIENT), CONFLICT, CONFLICT, "again"),
        (OperationFailure("out of disk", 14031), DOWN, DOWN, "out of disk"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PyMongoError) else None,
)
def test_S05_S06_what_an_error_means_for_a_read_and_for_a_write(
    error: PyMongoError, read: type, write: type, says: str
) -> None:
    for may_have_happened, kind in ((False, read), (True, write)):
        found = faults.fault(error, WHERE, may_have_happened=may_have_happened)
        assert type(found) is kind
        assert str(found).startswith(f"{WHERE}: ")
        assert says in str(found)


@pytest.mark.parametrize(
    ("error", "duplicate", "misfit", "conflict"),
    [
        (DuplicateKeyError("E11000", 11000), True, False, False),
        (bulk(11000, 11000), True, False, False),
        (bulk(11000, 14), False, True, False),
        (bulk(112), False, False, True),
        (OperationFailure("without details", 8), False, False, False),
        (OperationFailure("PathNotViable", 28), False, True, False),
        (OperationFailure("NoSuchTransaction", 251), False, False, True),
        (WriteConcernError("not replicated", 251), False, False, False),
        (AutoReconnect("closed"), False, False, False),
    ],
    ids=repr,
)
def test_S06_a_taken_id_a_misfit_and_a_conflict_are_told_apart(
    error: PyMongoError, duplicate: bool, misfit: bool, conflict: bool
) -> None:
    found = faults.is_duplicate(error), faults.is_misfit(error), faults.is_conflict(error)
    assert found == (duplicate, misfit, conflict)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (ServerSelectionTimeoutError("refused"), DOWN, "start the database, or correct its address"),
        (OperationFailure("bad credentials", 18), REFUSED, "check the user"),
    ],
)
def test_S01_who_opens_a_store_is_told_what_to_do(error: PyMongoError, kind: type, says: str) -> None:
    found: Any = faults.unreachable(error, WHERE)
    assert type(found) is kind
    assert says in str(found)


def test_M11_a_drivers_words_are_shown_without_a_password() -> None:
    error = AutoReconnect("mongodb://alice:hunter2@db.example: closed")
    assert "hunter2" not in str(faults.fault(error, WHERE, may_have_happened=True))
    assert "hunter2" not in str(faults.unreachable(ServerSelectionTimeoutError(str(error)), WHERE))
