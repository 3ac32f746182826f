"""How the scripted upstream sends an answer: the writes, pauses and end its script asks for, rendered once.

Pure but for recorded bodies, which are read from the directory the server was given.
"""

import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import orjson

from farebox.run.demo.answers import ROUTES, Answer, answer, error_body
from farebox.run.demo.script import DEFAULT_SCRIPT, Script, ScriptError, script_of
from farebox.run.demo.shapes import ID_MARK

PLANS_KEPT: Final = 4096
PLAN_BODY_BYTES_MAX: Final = 8192
LARGE_PLANS_KEPT: Final = 4
"""Of requests beyond that size: a benchmark sends the same one again and again."""

_HEAD_END: Final = b"\r\n\r\n"
_FIXED_ID: Final = b"0" * len(ID_MARK)
"""The id in bodies into which none can be filled any more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request's answer, ready to send: `writes` go out one by one, `delay_s` apart, ids filled in.

    `whole` is set when one write does it all. `after` says what follows the last write: "", "close", "stall".
    """

    whole: tuple[bytes, ...] | None
    writes: tuple[bytes, ...]
    first_delay_s: float
    delay_s: float
    after: str
    status: int
    completed: bool
    line: bytes
    counts: dict[str, int]


class Planner:
    """Turns requests into plans; equal requests share one plan."""

    def __init__(self, default: Script, bodies: Path | None) -> None:
        self._default = default
        self._bodies = bodies
        self._plans: dict[tuple[bytes, bytes], Plan] = {}
        self._large_plans = 0

    def plan(self, path: bytes, body: bytes) -> Plan:
        """The plan for one request; a bad request has one too."""
        key = (path, body)
        known = self._plans.get(key)
        if known is not None:
            return known
        plan = self._fresh(path.decode("latin-1").partition("?")[0], body)
        if self._has_room(body):
            self._plans[key] = plan
        return plan

    def _has_room(self, body: bytes) -> bool:
        if len(body) > PLAN_BODY_BYTES_MAX:
            self._large_plans += 1
            return self._large_plans <= LARGE_PLANS_KEPT
        return len(self._plans) < PLANS_KEPT

    def _fresh(self, path: str, body: bytes) -> Plan:
        wire_format = ROUTES.get(path)
        if wire_format is None:
            return refusal("", path, 404, f"no such route: {path}")
        try:
            request = orjson.loads(body)
            if not isinstance(request, dict):
                raise ScriptError("the request body is not a JSON object")
            script = script_of(request, self._default)
            said = self._recorded(script) if script.body else answer(wire_format, request, script)
        except (ValueError, OSError) as error:
            return refusal(wire_format, path, 400, str(error))
        return lay_out(said, script, path, str(request.get("model", "")))

    def _recorded(self, script: Script) -> Answer:
        if self._bodies is None:
            raise ScriptError("script field 'body' needs the server's --bodies")
        file = self._bodies / Path(script.body).name
        kinds = {".sse": "text/event-stream", ".eventstream": "application/vnd.amazon.eventstream"}
        kind = kinds.get(file.suffix, "application/json")
        return Answer(
            script.status, kind, (file.read_bytes(),), streamed=kind != "application/json", counts={}
        )


def refusal(wire_format: str, path: str, status: int, message: str) -> Plan:
    """The plan that answers with an error."""
    body = error_body(wire_format, status, message)
    said = Answer(status, "application/json", (body,), streamed=False, counts={})
    return lay_out(said, replace(DEFAULT_SCRIPT, status=status), path, "")


def lay_out(said: Answer, script: Script, path: str, model: str) -> Plan:
    """Cut an answer into the writes its script asks for."""
    cut = script.cut_after if script.cut_after >= 0 else script.stall_after
    events = said.events
    if said.streamed and cut >= 0:
        events = events[:cut]
    framing = script.framing or ("chunked" if said.streamed else "length")
    if script.gzip or script.piece_bytes:
        events = tuple(event.replace(ID_MARK, _FIXED_ID) for event in events)
    coded = [gzip.compress(b"".join(events), mtime=0)] if script.gzip else list(events)
    head = _head(said, script, framing, sum(map(len, coded if script.gzip else said.events)))
    if script.piece_bytes:
        joined = b"".join(coded)
        coded = [joined[at : at + script.piece_bytes] for at in range(0, len(joined), script.piece_bytes)]
    if not said.streamed and cut >= 0:
        coded = [b"".join(coded)[:cut]]
    broken = cut >= 0 or script.drop or script.hang
    writes = (
        [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in coded if piece] if framing == "chunked" else coded
    )
    if framing == "chunked" and not broken:
        writes = [*writes[:-1], (writes[-1] if writes else b"") + b"0\r\n\r\n"]
    paced = bool(script.piece_bytes) or (said.streamed and script.delay_ms > 0)
    writes = [head + (writes[0] if writes else b""), *writes[1:]] if paced else [head + b"".join(writes)]
    if script.drop or script.hang:
        writes = []
    return Plan(
        whole=tuple(writes[0].split(ID_MARK)) if len(writes) == 1 and not script.first_delay_ms else None,
        writes=tuple(writes),
        first_delay_s=script.first_delay_ms / 1000,
        delay_s=script.delay_ms / 1000,
        after=_after(script, framing),
        status=said.status,
        completed=not broken and script.error_after < 0 and script.terminal,
        line=_line(said, path, model),
        counts=dict(said.counts),
    )


def _head(said: Answer, script: Script, framing: str, length: int) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (said.status, b"OK" if said.status == 200 else b"Scripted")]
    lines += [b"content-type: " + said.content_type.encode(), b"x-request-id: req_" + ID_MARK]
    if framing == "chunked":
        lines.append(b"transfer-encoding: chunked")
    elif framing == "length":
        lines.append(b"content-length: %d" % length)
    if script.gzip:
        lines.append(b"content-encoding: gzip")
    if script.retry_after:
        lines.append(b"retry-after: %d" % script.retry_after)
    if framing == "close" or script.close:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + _HEAD_END


def _after(script: Script, framing: str) -> str:
    if script.hang or script.stall_after >= 0:
        return "stall"
    ends = framing == "close" or script.close or script.close_silently or script.drop or script.cut_after >= 0
    return "close" if ends else ""


def _line(said: Answer, path: str, model: str) -> bytes:
    members = {"route": path, "model": model, "streamed": said.streamed, "status": said.status}
    return orjson.dumps({**members, "usage": dict(said.counts)})[1:]
