"""A write that has no id of its own is done once per Idempotency-Key: its answer is kept, without secrets.

Whoever repeats a request gets the answer of the first one, a refusal too; another request under the same key
is refused. Where the first one began and nobody knows its end (the process died, the store failed in
between), the repeat is refused with what to look at, not done twice.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from farebox.base.errors import UsageError
from farebox.console.answers import Declined
from farebox.console.routes import Call
from farebox.store.base import Event, EventResult, Record, RecordChange

_KIND: Final = "request"
_BEGUN, _DONE = "begun", "done"
_SECRETS: Final = frozenset({"key", "token"})


async def once(call: Call, make: Callable[[], Awaitable[Mapping[str, object]]]) -> Mapping[str, object]:
    """The answer of `make`, or of the first request under this Idempotency-Key. Raises what `make` raises."""
    wish = {"wish": _wish(call)}
    begun = Record(_KIND, call.reference, 1, wish, status=_BEGUN, created_ms=call.now_ms)
    event = Event((), records=(RecordChange.insert(begun),))
    result = await call.store.apply_event(event, call.now_ms)
    if result is not EventResult.DONE:
        return await _first_answer(call)
    try:
        answer = await make()
    except (Declined, UsageError) as error:
        said = {"status": error.status, "code": error.code} if isinstance(error, Declined) else {}
        await _keep(call, begun, {"error": str(error), **said})
        raise
    await _keep(call, begun, {"answer": {name: answer[name] for name in answer if name not in _SECRETS}})
    return answer


async def _keep(call: Call, begun: Record, document: Mapping[str, object]) -> None:
    change = RecordChange.update(replace(begun, status=_DONE, document={**begun.document, **document}))
    await call.store.apply_event(Event((), records=(change,)), call.now_ms)


async def _first_answer(call: Call) -> Mapping[str, object]:
    first = await call.store.record(_KIND, call.reference)
    if first is not None and first.document["wish"] != _wish(call):
        raise Declined(
            409, "idempotency_key", "this Idempotency-Key was used for another request; use a new one"
        )
    if first is None or first.status != _DONE:
        raise Declined(
            409,
            "begun",
            "a request with this Idempotency-Key has begun, and its end is not known: look first",
        )
    answer = first.document.get("answer")
    if isinstance(answer, dict):
        return {**answer, "repeated": True}
    status = first.document.get("status")
    raise Declined(
        status if isinstance(status, int) else 400,
        str(first.document.get("code", "invalid")),
        str(first.document["error"]),
    )


def _wish(call: Call) -> str:
    """What is asked for, apart from who asks and by which route (`Call.reference`)."""
    body = "" if call.body is None else call.body.model_dump_json()
    return hashlib.sha256(f"{sorted(call.path.items())}\n{body}".encode()).hexdigest()
