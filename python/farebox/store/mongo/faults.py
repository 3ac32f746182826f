"""What an error of the driver or the server means: did anything happen, may the call be repeated, is the
store usable at all.

Promises: StoreDownError only where nothing was changed; a write whose answer was lost is StoreUnknownError; a
message never holds the address's credentials (M11).
"""

from typing import Final

import bson.errors
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
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

from farebox.base.errors import (
    FaultError,
    StoreConflictError,
    StoreDownError,
    StoreRefusedError,
    StoreUnknownError,
)
from farebox.base.redaction import redacted
from farebox.store.mongo.values import UnstorableError

_TRANSIENT: Final = "TransientTransactionError"
WRITE_CONFLICT: Final = 112
_LOST_TRANSACTION: Final = frozenset({24, 225, 244, 246, 251})
"""LockTimeout, TransactionTooOld, TransactionAborted, SnapshotUnavailable, NoSuchTransaction."""
DUPLICATE_KEY: Final = 11000
_NOT_ALLOWED: Final = frozenset({13, 18, 8000})
"""Unauthorized, AuthenticationFailed, and a hosted service's own AtlasError."""
_NO_TRANSACTIONS: Final = 20
_NOT_PRIMARY: Final = frozenset({189, 91, 11600, 11602, 10107, 13435, 13436})

_MISFIT: Final = frozenset({14, 28, 10334, 17419, 17420})
"""TypeMismatch, PathNotViable, and a document that would grow beyond what the server holds."""

ROW_ERRORS: Final = (
    UnstorableError,
    OverflowError,
    UnicodeEncodeError,
    bson.errors.BSONError,
    DocumentTooLarge,
)
"""The fault lies in a value to be written (poison), not in the store."""

MAKE_REPLICA_SET: Final = (
    "start it with `mongod --replSet rs0` (or `replication.replSetName: rs0` in mongod.conf), then once: "
    "mongosh --eval 'rs.initiate()'"
)


def no_transactions(where: str) -> StoreRefusedError:
    """The server is a standalone one."""
    return StoreRefusedError(
        f"{where}: a standalone server has no transactions; make it a replica set of one node: "
        f"{MAKE_REPLICA_SET}"
    )


def unreachable(error: PyMongoError, where: str) -> FaultError:
    """The error for who opens the store and finds no server."""
    found = fault(error, where, may_have_happened=False)
    if isinstance(found, StoreDownError):
        return StoreDownError(f"{found}; start the database, or correct its address in `store`")
    return found


def other_clock(where: str, ahead_s: float) -> StoreRefusedError:
    """This machine's clock and the server's are too far apart."""
    there = "ahead of" if ahead_s > 0 else "behind"
    return StoreRefusedError(
        f"{where}: this machine's clock is {abs(ahead_s):.0f} s {there} the database's, and what has "
        "expired depends on it: set both by a time service (`timedatectl set-ntp true`)"
    )


def changed_meanwhile(user: str) -> StoreConflictError:
    """A guarded update met another document than the one that was read."""
    return StoreConflictError(f"{user} was changed by another host at the same time")


def is_duplicate(error: PyMongoError) -> bool:
    """Whether a unique id or index was there already, and that is all."""
    if not isinstance(error, OperationFailure):
        return False
    if error.code == DUPLICATE_KEY:
        return True
    details = error.details or {}
    failed = details.get("writeErrors", [])
    return bool(failed) and all(one.get("code") == DUPLICATE_KEY for one in failed)


def is_misfit(error: PyMongoError) -> bool:
    """Whether an update does not fit the document it met: somebody else has written to a field of ours."""
    if not isinstance(error, OperationFailure):
        return False
    codes = {error.code, *(one.get("code") for one in (error.details or {}).get("writeErrors", []))}
    return bool(codes & _MISFIT)


def is_conflict(error: PyMongoError) -> bool:
    """Whether the server ended a transaction because of another one: nothing happened, try again."""
    if not isinstance(error, OperationFailure) or isinstance(error, WriteConcernError):
        return False
    codes = {error.code, *(one.get("code") for one in (error.details or {}).get("writeErrors", []))}
    return error.has_error_label(_TRANSIENT) or bool(codes & {WRITE_CONFLICT, *_LOST_TRANSACTION})


def fault(error: PyMongoError, where: str, *, may_have_happened: bool) -> FaultError:
    """The error for a caller. `may_have_happened`: a write was on its way whose answer has not come."""
    text = f"{where}: {redacted(str(error))[:300]}"
    if isinstance(error, ServerSelectionTimeoutError | WaitQueueTimeoutError):
        reason = redacted(str(error)).partition(" (configured")[0].partition(", Timeout:")[0]
        return StoreDownError(f"{where}: no server answers ({reason[:200]})")
    if isinstance(error, InvalidURI | ConfigurationError):
        return StoreRefusedError(text)
    if isinstance(error, NotPrimaryError):
        return StoreDownError(f"{where}: the primary is changing; the operation is tried again")
    if isinstance(error, OperationFailure):
        return _server_fault(error, where, text, may_have_happened=may_have_happened)
    if isinstance(error, AutoReconnect | ConnectionFailure) and may_have_happened:
        return StoreUnknownError(text)
    if isinstance(error, InvalidOperation):
        return StoreDownError(f"{where}: the store is closed")
    return StoreDownError(text)


def _server_fault(error: OperationFailure, where: str, text: str, *, may_have_happened: bool) -> FaultError:
    if error.code in _NOT_ALLOWED:
        return StoreRefusedError(f"{text}; check the user, password and rights in the store's address")
    if error.code == _NO_TRANSACTIONS and "ransaction" in str(error):
        return no_transactions(where)
    if error.code in _NOT_PRIMARY:
        return StoreDownError(f"{where}: the primary is changing; the operation is tried again")
    if isinstance(error, WriteConcernError | ExecutionTimeout):
        return StoreUnknownError(text) if may_have_happened else StoreDownError(text)
    if is_conflict(error):
        return StoreConflictError(text)
    return StoreDownError(text)
