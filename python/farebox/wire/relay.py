"""The way of an answer from an upstream connection through a tap to a client, with backpressure both ways.

`Relay` is the hot path of a stream: one tap call and one write per chunk. `Collector` gathers a plain
answer whole, so that what it costs is known before its first byte leaves. Neither knows what the tap means:
where the tap holds bytes back they stop and ask (`on_hold_point`), and go on when told.
"""

from collections.abc import Callable
from typing import Final, Protocol

from farebox._meter import BROKEN, END, REUSABLE, Head
from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, UpstreamError
from farebox.wire.incoming import Incoming
from farebox.wire.upstream import Connection

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")

HoldPoint = Callable[[bytes, int], None]
"""`on_hold_point(held, state)`: settle what `state` (TERMINAL, END, BROKEN, OVERSIZE bits) asks for, then
call `send_held(held)` and, where the state has END, `finish()`; with BROKEN `send_held(held)` and `cut()`.
At once or later.
"""


class Tap(Protocol):
    """What looks at every byte of an answer: `farebox._meter.Pipe`, or anything of its shape."""

    @property
    def output_bytes(self) -> int:
        """Generated text seen so far, in bytes."""

    def feed(self, data: bytes) -> bytes | tuple[bytes, bytes, int] | None:
        """Bytes from the upstream: None (send them), bytes (send these), or (send now, held back, state)."""

    def finish(self) -> tuple[bytes, bytes, int]:
        """The upstream closed."""


class Relay:
    """Receiver that passes a body on as it comes.

    Made within on_head, after `client.start_stream`; `begin` takes the connection over. The upstream
    connection is released or aborted here as soon as the body ended, before `on_hold_point` hears of it.
    `framed`: the tap's output is framed for this client already (chunked, or a body of known length). When
    the client leaves, `on_gone` is called and the relay goes on feeding the tap; `drop_upstream` ends that.
    `error`: what ended the body early, if anything. `client.bytes_written`: the bytes that went out.
    `watched`: what else stirs with each read; its owner may set it, at first it is the upstream's.
    """

    __slots__ = (
        "_chunk_count",
        "_client_watched",
        "_feed",
        "_framed",
        "_holding",
        "_last",
        "_over",
        "_reads_before",
        "_tap",
        "_upstream_watched",
        "_waiting",
        "client",
        "error",
        "on_gone",
        "on_hold_point",
        "upstream",
        "watched",
    )

    def __init__(
        self,
        client: Incoming,
        upstream: Connection,
        tap: Tap,
        on_hold_point: HoldPoint,
        on_gone: Callable[[], None] | None = None,
        *,
        framed: bool = True,
    ) -> None:
        self.client = client
        self.upstream = upstream
        self.on_hold_point = on_hold_point
        self.on_gone = on_gone
        self.error: UpstreamError | None = None
        self._chunk_count = 0
        self._reads_before = upstream.read_count
        self._tap = tap
        self._feed = tap.feed
        self._framed = framed
        self._holding = False
        self._last = b""
        self._over = False
        self._waiting: list[bytes] = []
        self._client_watched = client.watched
        self._upstream_watched = upstream.watched
        self.watched = upstream.watched
        client.on_gone = self._client_gone
        client.on_paused = upstream.pause_reading
        client.on_writable = self._client_writable
        if client.paused and not client.gone:
            upstream.pause_reading()

    def begin(self, head: Head, rest: bytes) -> None:
        """Take over from the receiver that got the head: `rest` came with it. Call once, within on_head."""
        self.upstream.hand_over(self)
        if rest or head.framing == 0:
            self.on_data(rest)

    @property
    def chunk_count(self) -> int:
        """Reads of the upstream for this body."""
        return self._chunk_count if self._over else self.upstream.read_count - self._reads_before

    # ---- receiver --------------------------------------------------------------------------------------

    def on_head(self, head: Head, rest: bytes) -> None:  # noqa: ARG002 - the protocol's signature
        """A second head cannot come: the connection delivers one per request."""
        msg = "a relay was given a response head"
        raise InvariantBrokenError(msg)

    def on_data(self, data: bytes) -> None:
        """The hot path."""
        self.upstream.read_count += 1
        if self.watched.asleep or self._upstream_watched.asleep or self._client_watched.asleep:
            self._stir()
        if self._holding:
            self._waiting.append(data)
            return
        out = self._feed(data)
        if out is None:
            out = data
        elif type(out) is not bytes:
            self._hold(*out)
            return
        if not out:
            return
        self._last = out
        client = self.client
        send = client.send
        if send is not None:
            if not self._framed:
                out = client.framed(out)
            client.bytes_written += len(out)
            send(out)

    def _stir(self) -> None:
        self.watched.stir()
        self._upstream_watched.stir()
        self._client_watched.stir()

    def _write(self, data: bytes) -> None:
        self._last = data
        if self._framed:
            self.client.write(data)
        else:
            self.client.write_framed(data)

    def on_closed(self, error: UpstreamError | None) -> None:
        """The upstream closed or failed: the proper end of a body without a length, or a cut."""
        if self._over:
            return
        self.error = error
        if self._holding:
            return
        self._finish_tap()

    def _finish_tap(self) -> None:
        now, held, state = self._tap.finish()
        if self.error is not None:
            state = (state & ~(END | REUSABLE)) | BROKEN
        self._hold(now, held, state)

    def _hold(self, now: bytes, held: bytes, state: int) -> None:
        if now:
            self._write(now)
        self._holding = True
        if state & (END | BROKEN):
            self._end()
            self.upstream.release(bool(state & REUSABLE) and not state & BROKEN)
        self.on_hold_point(held, state)
        if self._holding and not self._over:
            self.upstream.pause_reading()

    # ---- for the proxy ---------------------------------------------------------------------------------

    def send_held(self, held: bytes) -> None:
        """Send what was held back and go on relaying."""
        if held:
            self._write(held)
        if not self._holding:
            return
        self._holding = False
        if self._over:
            return
        waiting, self._waiting = self._waiting, []
        while waiting:
            self.upstream.read_count -= 1
            self.on_data(waiting.pop(0))
            if self._holding:
                self._waiting = waiting + self._waiting
                return
        if self.upstream.closed and not self._over:
            self._finish_tap()
        elif not self.client.paused:
            self.upstream.resume_reading()

    def send(self, data: bytes) -> None:
        """Send bytes of our own (an error or cut event), framed as the client's stream needs."""
        self.client.write_framed(data)

    def finish(self) -> None:
        """End the client's stream properly."""
        self._detach()
        self.client.end()

    def cut(self) -> None:
        """End the client's connection so that it sees a truncated stream."""
        self._detach()
        self.client.abort()

    def drop_upstream(self) -> None:
        """Take no more from the upstream: its connection is closed, the tap is not fed any more.

        Nothing happens after the body's end: the connection may serve another request by then.
        """
        if self._over:
            return
        self._end()
        self._waiting.clear()
        self.upstream.abort()

    def leave(self) -> None:
        """Tell its owner nothing more, the body and the client's stream being over; both go without waiting
        for the garbage collector then.
        """
        self.on_hold_point, self.on_gone = _nobody, None

    def between_events(self) -> bool:
        """Whether what the client got ends with a whole event, so that one of our own may follow."""
        last = self._last[:-2] if self._framed and self.client.chunked else self._last
        return not last or last.endswith(_EVENT_ENDS)

    def when_between_events(self, act: Callable[[], None]) -> None:
        """Call `act` once as soon as `between_events`, now or after a later read; never when the body ends
        first.
        """
        if self.between_events():
            act()
        elif not self._over:
            self.upstream.hand_over(_UntilBetweenEvents(self, act))

    # ---- client events ---------------------------------------------------------------------------------

    def _client_writable(self) -> None:
        if not self._over and not self._holding:
            self.upstream.resume_reading()

    def _client_gone(self) -> None:
        if not self._over and not self._holding:
            self.upstream.resume_reading()
        if self.on_gone is not None:
            self.on_gone()

    def _end(self) -> None:
        self._chunk_count = self.chunk_count
        self._over = True
        self.client.on_paused = None  # the connection may serve another client from here on

    def _detach(self) -> None:
        self.client.on_gone = self.client.on_paused = self.client.on_writable = None


def _nobody(held: bytes, state: int) -> None:
    """Whom a relay tells that was left."""


class _UntilBetweenEvents:
    """Stands before a relay for the reads until its client has a whole event."""

    __slots__ = ("_act", "_relay")

    def __init__(self, relay: Relay, act: Callable[[], None]) -> None:
        self._relay = relay
        self._act = act

    def on_head(self, head: Head, rest: bytes) -> None:
        self._relay.on_head(head, rest)

    def on_data(self, data: bytes) -> None:
        self._relay.on_data(data)
        if self._relay.upstream.receiver is self and self._relay.between_events():
            self._relay.upstream.hand_over(self._relay)
            self._act()

    def on_closed(self, error: UpstreamError | None) -> None:
        self._relay.on_closed(error)


class Collector:
    """Receiver that gathers a plain answer up to `bytes_max`.

    `on_complete(body, state)` is called once, with END or BROKEN in `state`; the upstream connection is
    released then. `on_overflow(collected)` is called instead when the answer outgrows the bound: the owner
    starts a stream, sets a `Relay` with the same tap as the connection's receiver and writes `collected`
    first. `error`: what ended the body early, if anything.
    """

    __slots__ = (
        "_bytes_max",
        "_over",
        "_parts",
        "_size",
        "_tap",
        "error",
        "on_complete",
        "on_overflow",
        "upstream",
    )

    def __init__(
        self,
        upstream: Connection,
        tap: Tap,
        on_complete: Callable[[bytes, int], None],
        on_overflow: Callable[[bytes], None],
        bytes_max: int = limits.answer_held_bytes_max,
    ) -> None:
        self.upstream = upstream
        self.on_complete = on_complete
        self.on_overflow = on_overflow
        self.error: UpstreamError | None = None
        self._tap: Final = tap
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self._size = 0
        self._over = False

    def begin(self, head: Head, rest: bytes) -> None:
        """Take over from the receiver that got the head: `rest` came with it. Call once, within on_head."""
        self.upstream.receiver = self
        if rest or head.framing == 0:
            self.on_data(rest)

    def on_head(self, head: Head, rest: bytes) -> None:  # noqa: ARG002 - the protocol's signature
        """A second head cannot come: the connection delivers one per request."""
        msg = "a collector was given a response head"
        raise InvariantBrokenError(msg)

    def on_data(self, data: bytes) -> None:
        """Gather; the end of the body completes it."""
        out = self._tap.feed(data)
        if isinstance(out, tuple):
            self._take(*out)
            return
        self._add(data if out is None else out)
        self._overflow_if_large()

    def on_closed(self, error: UpstreamError | None) -> None:
        """The upstream closed or failed: the proper end of a body without a length, or a cut."""
        if self._over:
            return
        self.error = error
        now, held, state = self._tap.finish()
        if error is not None:
            state = (state & ~(END | REUSABLE)) | BROKEN
        self._take(now, held, state)

    def _take(self, now: bytes, held: bytes, state: int) -> None:
        self._add(now)
        self._add(held)
        if not state & (END | BROKEN):
            self._overflow_if_large()
            return
        self._over = True
        self.upstream.release(bool(state & REUSABLE) and not state & BROKEN)
        self.on_complete(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts), state)

    def _add(self, data: bytes) -> None:
        if data:
            self._parts.append(data)
            self._size += len(data)

    def _overflow_if_large(self) -> None:
        if self._size > self._bytes_max:
            self._over = True
            self.on_overflow(b"".join(self._parts))


def collect(
    upstream: Connection,
    tap: Tap,
    head: Head,
    rest: bytes,
    on_complete: Callable[[bytes, int], None],
    on_overflow: Callable[[bytes], None],
) -> None:
    """Gather an answer as a `Collector` does; the usual one came whole with its head and needs none.

    Call once, within on_head.
    """
    if 0 < head.framing == len(rest) <= limits.answer_held_bytes_max:
        out = tap.feed(rest)
        if isinstance(out, tuple):
            now, held, state = out
            upstream.release(bool(state & REUSABLE) and not state & BROKEN)
            on_complete(now + held if now else held, state)
            return
        msg = "a body of its stated length did not end"
        raise InvariantBrokenError(msg)
    Collector(upstream, tap, on_complete, on_overflow).begin(head, rest)
