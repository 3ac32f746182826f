"""Compiled half of the meter: request head and scan, response head, body pipe, usage reading, exact prices.

Nothing here does I/O, keeps global state or holds money as a float. Every function accepts `bytes` only
(immutable, so it is safe to read with the interpreter lock released) and raises only the errors named.
"""

from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar, final

_Record = TypeVar("_Record", bound=tuple[Any, ...])
_Debit = TypeVar("_Debit", bound=tuple[Any, ...])

__all__ = [
    "BROKEN",
    "CHUNKED",
    "END",
    "OVERSIZE",
    "REUSABLE",
    "TERMINAL",
    "UNTIL_CLOSE",
    "Charge",
    "Head",
    "HeadError",
    "Pipe",
    "PlainCharge",
    "PlainTerms",
    "PlainUsage",
    "Price",
    "PriceError",
    "Reading",
    "RunFolder",
    "Scan",
    "ScanError",
    "SettlementReader",
    "SettlementWording",
    "Tally",
    "add_up",
    "decode_run",
    "encode_frames",
    "format_pico",
    "parse_head",
    "parse_pico",
    "parse_request",
    "plain_charge",
    "request_lines",
    "scan",
    "unpack",
    "whole_answer",
]

CHUNKED: Final[int]
"""`Pipe(framing=...)`: the upstream body uses chunked transfer coding."""
UNTIL_CLOSE: Final[int]
"""`Pipe(framing=...)`: the upstream body ends when the connection closes."""

TERMINAL: Final[int]
"""State bit: `held` begins with the wire format's terminal event; settle before it is sent."""
END: Final[int]
"""State bit: the body is complete; `held` is its last bytes (possibly empty)."""
REUSABLE: Final[int]
"""State bit, with END: the upstream connection stands exactly at a message boundary."""
BROKEN: Final[int]
"""State bit: transfer framing is invalid or the body was cut; the client must see a truncation."""
OVERSIZE: Final[int]
"""State bit, with BROKEN: a limit of the meter was crossed (inflated size, event size under strip)."""

class ScanError(ValueError):
    """The request body cannot be served; `code` is stable, `str()` says what to change."""

    code: str
    """One of: utf8, json, depth, duplicate_key, type, missing, range, limit."""
    field: str
    """JSON path of the culprit (`messages[3].content`), or empty."""

class HeadError(ValueError):
    """The upstream's response head is not acceptable HTTP/1.x."""

class PriceError(ValueError):
    """A price, multiplier or tier is not an exact non-negative decimal, or a charge would overflow."""

@final
class Scan:
    """What admission needs from a request body, found in one pass without building objects."""

    model: str
    stream: bool
    output_limit: int | None
    """Tokens per choice the client allows: max_tokens, max_completion_tokens or max_output_tokens.
    None when absent or null."""
    choices: int
    """n, or best_of where larger; at least 1. Array prompts multiply it."""
    include_usage: bool | None
    """stream_options.include_usage as sent; None when absent."""
    text_bytes: int
    """Upper bound of prompt text in bytes: the body's length less inline media (`data_bytes`)."""
    data_bytes: int
    """Bytes of inline base64 images, audio and files."""
    image_count: int
    audio_count: int
    file_count: int
    message_count: int
    tool_count: int
    server_context: bool
    """The prompt contains more than the body shows: previous_response_id, conversation, prompt,
    container, thread, file ids, item references, remote documents."""
    price_fields: dict[str, str]
    """Request fields that change the price, the way of serving or the destination, as sent, without
    quotes: service_tier, speed, inference_geo, background, prompt_cache_retention,
    prompt_cache_options.ttl, modalities (not text), search_parameters, deferred, fallbacks, models,
    route, provider, plugins, api_base, base_url, custom_llm_provider, user_config, extra_headers. Absent,
    null, false and the default cache lifetime are left out; an object, array or number is its type's
    name."""
    hosted_tools: list[str]
    """Types of tools the upstream runs itself (web_search_20250305, file_search, code_interpreter, mcp,
    ...)."""

    def edited(self, body: bytes, model: str | None, include_usage: bool) -> bytes:
        """The same body with `model` replaced (None: kept) and stream_options.include_usage set to true if
        asked.

        Edits are spliced; every other byte stays. `body` must be the bytes that were scanned.
        """

def scan(body: bytes, wire_format: str, depth_max: int = 128) -> Scan:
    """Read a request body of `wire_format` (chat, completions, responses, messages, embeddings). Raises
    ScanError."""

def parse_request(
    data: bytes, body_bytes_max: int
) -> tuple[str, str, str, str | None, bool, bool, bytes, bytes, bytes, int] | None:
    """Read a client's plain request that starts with `data`; None for whatever is odd, for a general parser.

    Method, path, query, API key (None: to be looked for), declared as JSON, keep-alive, header lines for the
    upstream, the head, the body as far as it came, bytes of the body that are missing.

    Plain: POST or GET of a path, HTTP/1.1, one host, no transfer coding, expectation, upgrade or doubled
    header that matters, nothing behind the body, which is not longer than `body_bytes_max`.
    """

def request_lines(raw_headers: Sequence[tuple[bytes, bytes]], path: str) -> bytes:
    """A client's headers that go to the upstream, as lines; messages routes always name a version."""

@final
class Head:
    """One parsed response head."""

    status: int
    minor_version: int
    headers: list[tuple[bytes, bytes]]
    """Names lower-cased, values stripped, in order; transfer framing headers included."""
    framing: int
    """CHUNKED, UNTIL_CLOSE or the content length."""
    keep_alive: bool
    length: int
    """Bytes of the head; the body starts here."""

    def facts(self, request_id_bytes_max: int) -> tuple[bytes, bool, str, str]:
        """What is passed on, by an allow-list: header lines for the client (streams are marked not to be
        buffered on the way), whether the body is a stream of events, its content encoding, and the
        upstream's id of the request for the log (visible ASCII, not longer than stated, else empty)."""

def parse_head(data: bytes, no_body: bool, bytes_max: int, headers_max: int) -> Head | None:
    """Parse a response head; None while incomplete. 1xx heads are returned like others (framing 0). Raises
    HeadError.

    Refused: both Content-Length and Transfer-Encoding, differing lengths, codings but `chunked`, obs-fold,
    bare CR or LF, control bytes, status outside 100-599. `no_body`: the request was HEAD (204 and 304 are
    known).
    """

@final
class Reading:
    """What a response body says about its usage."""

    usage: dict[str, object] | None
    """The corpus index's `expected` members (a member is None when not reported); None when there is no
    usage."""
    counts: dict[str, int]
    """Normal form for pricing: only kinds with a count above 0 (see `Price`). Disjoint kinds."""
    input_total: int
    """All prompt tokens of one inference, cached included: chooses the context tier."""
    other_models: dict[str, dict[str, int]]
    """Sub-inferences served by another model: model -> counts."""
    complete: bool
    """The terminal event (or the whole JSON body) was seen."""
    final: bool
    """The usage is the format's final statement, not a preliminary one."""
    failed: bool
    """The body is, or contains, an upstream error."""
    flags: list[str]
    """Anomalies, the corpus index's names among them; sorted, unique."""
    model: str | None
    response_id: str | None
    service_tier: str | None
    speed: str | None
    inference_geo: str | None
    raw: bytes
    """The usage object(s) as sent, JSON, at most 4 KiB; empty when none."""
    output_bytes: int
    """UTF-8 bytes of generated text, reasoning and tool arguments seen, for estimates."""

@final
class Pipe:
    """One response body on its way through: transfer decoding, metering, and re-framing for the client.

    One call per chunk. Body bytes are never changed, except that an injected usage chunk is removed
    (`strip_usage`).
    """

    def __new__(
        cls,
        wire_format: str,
        framing: int,
        *,
        chunked_out: bool = False,
        strip_usage: bool = False,
        content_encoding: str = "",
        cache_semantics: str = "auto",
        inflated_bytes_max: int = 268435456,
        event_bytes_max: int = 67108864,
    ) -> Pipe:
        """`wire_format` "" meters nothing. `cache_semantics`: auto, inclusive, exclusive (prompt counts
        include cache).

        `content_encoding`: "", identity, gzip, deflate are metered through a bounded inflater and relayed as
        they are; others raise ValueError. `chunked_out`: outputs are chunk-framed (without the last chunk).
        """

    def feed(self, data: bytes) -> bytes | tuple[bytes, bytes, int] | None:
        """Take bytes from the upstream socket.

        None: send `data` itself. bytes: send these (possibly none). Tuple (now, held, state): send `now`;
        send `held` only after what `state` asks for (settle on TERMINAL or END). After TERMINAL was returned
        once, later bytes come back as plain results. Bytes beyond the end of the body make the state lack
        REUSABLE and are dropped.
        """

    def finish(self) -> tuple[bytes, bytes, int]:
        """The upstream closed: like `feed`, with END (until-close bodies) or BROKEN."""

    @property
    def output_bytes(self) -> int:
        """Generated text seen so far, in bytes; for holds that grow with the stream."""

    def reading(self) -> Reading:
        """The usage as known now; callable at any moment."""

@final
class Charge:
    """Priced usage: `amount_pico` is rounded once, half to even."""

    amount_pico: int
    lines: list[tuple[str, int, str, str]]
    """(kind, count, unit price as configured, exact amount in USD before the multiplier), in the order of
    the kinds."""
    multiplier: str
    tier: int
    """Index of the context tier that priced it; -1 for the base lines."""
    missing: list[str]
    """Kinds with a count above 0 and no price line; non-empty means amount_pico is 0 and must not be
    booked."""

@final
class Price:
    """Compiled, immutable prices of one model.

    Token kinds are priced per million: input, cache_read, cache_write_5m, cache_write_1h, output,
    audio_input, audio_output, image_input, image_output. Others per unit: web_search, file_search,
    code_interpreter, image, second, call (one per exchange).
    """

    def __new__(
        cls,
        lines: dict[str, str],
        multiplier: str = "1",
        *,
        tiers: list[tuple[int, bool, dict[str, str]]] = ...,
        variants: dict[str, dict[str, str]] = ...,
    ) -> Price:
        """`tiers`: (threshold in prompt tokens, inclusive, lines that replace the base lines), ascending;
        the highest reached applies to the whole request. `variants`: lines by service tier (batch,
        priority, flex) that replace base lines; inside a context tier a variant is priced by its lines
        under `name@threshold`, and without them its kinds are missing. Decimals: at most 24 places.
        Raises PriceError."""

    def charge(self, counts: dict[str, int], input_total: int, variant: str | None = None) -> Charge:
        """Price counts. A variant without an entry uses the base lines. Raises PriceError on overflow or
        negatives."""

@final
class PlainTerms:
    """One model on one wire format, compiled for the common exchange: text in, usage at base prices out.

    Each method does in one call what general functions decide step by step, and leaves to them, with None,
    whatever is not plain. `farebox.proxy.plain` makes these and says which functions are the reference.
    """

    def __new__(
        cls,
        price: Price,
        *,
        input_bound: tuple[int, int, int, int, int],
        context_tokens: int | None,
        assumed_output_tokens: int,
        output_tokens_max: int | None,
        slice_output_tokens: int,
        estimate_bytes_per_token: int,
        rates: list[tuple[int, int, int]],
        plain_tiers: list[str],
        count_max: int,
    ) -> PlainTerms:
        """`input_bound`: request_tokens, message_tokens, envelope_bytes, message_bytes, bytes per token.
        `rates`: reached_tokens, input_pico, output_pico of the base variant. The price has no `call` line."""

    def ask(self, scan: Scan) -> tuple[int, int, int, int, int] | None:
        """input_tokens, output_tokens, first_output_tokens, hold_pico, input_estimate_tokens."""

@final
class SettlementWording:
    """What all exchanges of one model on one route have in common, for their records."""

    def __new__(
        cls,
        wallet: str,
        model: str,
        wire_format: str,
        price_version: int,
        multiplier: str,
        upstream: str,
        free: bool,
        upstream_model_characters_max: int,
    ) -> SettlementWording: ...

@final
class PlainCharge:
    """The exact charge of a plain answer: a `Verdict` (evidence exact, base prices, one model), compiled."""

    amount_pico: int
    counts: dict[str, int]
    evidence: str
    quarantine: str
    input_total: int
    flags: tuple[str, ...]
    used: str
    """`kind=count@price` of each line."""
    upstream_model: str
    raw_usage: str

    def settlement(
        self,
        wording: SettlementWording,
        exchange: str,
        user: str,
        key: str,
        takes: tuple[tuple[str, str, int], ...],
        remaining_pico: int | None,
        outcome: str,
        status: int,
        upstream_request: str,
        stream: bool,
        started_ms: int,
        first_byte_ms: int,
        ended_ms: int,
    ) -> tuple[bytes, str]:
        """The wire form of the exchange's `Settlement`, and its log line. Raises OverflowError for amounts
        beyond 2^63."""

@final
class Tally:
    """What plain settlements add up to, until it is taken over into the counters."""

    def __new__(cls) -> Tally: ...
    def settled(self, charge: PlainCharge, latency_ms: int) -> None: ...
    def take(self) -> tuple[int, int, int, dict[str, int]]:
        """Exchanges, latency_ms, charged_pico and counts since it was last taken."""

def plain_charge(terms: PlainTerms, pipe: Pipe) -> PlainCharge | None:
    """The charge of a tap's answer, if it is plain: final usage of one model at the base price."""

def whole_answer(
    data: bytes,
    terms: PlainTerms,
    wire_format: str,
    own_lines: bytes,
    *,
    head_bytes_max: int,
    headers_max: int,
    body_bytes_max: int,
    request_id_bytes_max: int,
) -> tuple[int, bytes, bytes, PlainCharge, str, bool] | None:
    """A whole successful answer, if `data` is one: head and body of stated length, not encoded, its charge
    plain.

    Status, header lines for the client, body, charge, the upstream's request id, and whether the connection
    may serve again.

    The lines are the upstream's that are passed on, `own_lines`, and what it cost. Says what `parse_head`,
    `Head.facts`, `Pipe` and `plain_charge` say; None leaves it to them.
    """

def encode_frames(
    records: Sequence[tuple[int, bytes, *tuple[object, ...]]],
    journal: int,
    first_pos: int,
    synced_pos: int,
    before_crc: int,
) -> tuple[bytes, int]:
    """Journal frames of records (kind, record, ...) at positions that follow each other, and the CRC of the
    last."""

def unpack(payload: bytes) -> bytes:
    """The record of a settle frame's payload; one that was never packed comes back as it is."""

def decode_run(
    frame_type: type[_Record],
    data: bytes,
    journal: int,
    before_crc: int,
    last_pos: int,
    opens: dict[bytes, int],
    sequence: int,
    only_ends: bool,
) -> tuple[list[_Record], int, int, int]:
    """The frames of `journal` (kind, position, record; made as the named tuple `frame_type`) that follow
    each other without a gap from the start of `data`, behind the frame with that CRC and position; where they
    end, and CRC and position of the last.

    What stops it is for `farebox.journal.frames.decode` to say: damage, the end of what is written, a
    position that skips to another epoch, an open or an end that names no exchange. `opens` gains the
    exchanges that begin, with `sequence`, and loses those that end. With `only_ends` other frames are left
    out, but for one that is the last.
    """

@final
class RunFolder(Generic[_Record, _Debit]):
    """Folds runs of journal frames to what recovery needs. `farebox.journal.recovery` makes this and says
    which function is the reference.
    """

    def __new__(
        cls, frame: type[_Record], debit: type[_Debit], lot_amount: type[Any]
    ) -> RunFolder[_Record, _Debit]: ...
    def fold(
        self,
        data: bytes,
        journal: int,
        offset: int,
        before_crc: int,
        last_pos: int,
        synced_pos: int,
        given_pos: int,
        opens: dict[bytes, dict[int, bytes]],
    ) -> tuple[tuple[int, int, int, int], list[_Record | _Debit], list[_Record]]:
        """Fold the frames that follow each other in `data` from `offset` on, up to one that is not about an
        exchange: offset, CRC, position behind them and the highest position known synced; the ends among
        them, as debits where they are plain settlements; those behind what is known synced.

        `opens` gains what exchanges that have not ended said, by kind, and loses those that end. Frames up
        to `given_pos` are passed over.
        """

@final
class SettlementReader(Generic[_Record]):
    """Makes the records of settle frames in the plain current form. `farebox.writer.batch` makes this and
    says which functions are the reference.
    """

    def __new__(
        cls, settlement: type[Any], lot_amount: type[Any], finished: type[_Record]
    ) -> SettlementReader[_Record]: ...
    def read(self, frames: list[Any]) -> tuple[list[_Record], list[int]]:
        """Of each frame a `finished` (position, settlement), and the indices of those that are odd: None
        stands in their places.

        A settlement has the fields that booking asks for, `wire`, and `output_total`, `ledger_cells`,
        `log_cells` and `usage`; the others are left to its class.
        """

@final
class PlainUsage:
    """What one plain exchange adds to the rollups, and to whose."""

def add_up(usages: list[PlainUsage], step_ms: int) -> list[tuple[str, str, str, int, tuple[int, ...]]]:
    """User, model, wallet, start of the step and sums (`farebox.store.rollups.Sums`) of usages, those of the
    same four added up; some may come in several parts."""

def parse_pico(amount: str) -> int:
    """USD decimal string to pico-USD; exact. Raises PriceError on more than 12 decimals, exponents beyond
    reach, junk."""

def format_pico(amount_pico: int) -> str:
    """Pico-USD to the shortest exact USD decimal string ("0.027405", "6.6", "-1", "0")."""
