"""Upper bounds of what a request can cost, for holds: decided from the scan alone, before anything is sent.

A hold that is too small is the operator's risk, one that is too large refuses a user who could pay; so these
are bounds of what the wire formats allow, cut at what the model can take at all. Pure functions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from farebox.base.errors import InvariantBrokenError
from farebox.meter.price_book import ModelPrice, Rates

OUTPUT_TOKENS_MAX: Final = 2**31 - 1
"""Largest limit a request may name; also the answer where output costs nothing."""


class RequestFacts(Protocol):
    """The part of a `Scan` that bounds need."""

    @property
    def output_limit(self) -> int | None: ...
    @property
    def choices(self) -> int: ...
    @property
    def text_bytes(self) -> int: ...
    @property
    def data_bytes(self) -> int: ...
    @property
    def image_count(self) -> int: ...
    @property
    def audio_count(self) -> int: ...
    @property
    def file_count(self) -> int: ...
    @property
    def message_count(self) -> int: ...

    @property
    def tool_count(self) -> int: ...
    @property
    def server_context(self) -> bool: ...
    @property
    def hosted_tools(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class InputBound:
    """What one wire format can make of a request's parts, in tokens."""

    bytes_per_token: int
    """At most, whatever the model says: prompts may be arrays of token numbers, two bytes each."""
    request_tokens: int
    """Added once: formatting."""
    tools_tokens: int
    """Added once where tools are defined: the instructions the upstream writes around them."""
    envelope_bytes: int
    """Of the shortest body around a prompt (`{"model":"","messages":[]}`): no prompt text."""
    message_bytes: int
    """Of the shortest envelope of a message (`{"role":"user"}`), covered by `message_tokens`."""
    message_tokens: int
    """Added per message: role and separators."""
    image_tokens: int
    """At most, per image: the dearest published image of a current model."""
    file_tokens: int
    """Added per file, besides two tokens per inline byte (compressed pages, each also seen as an image)."""
    audio_tokens: int
    """Added per audio clip, besides one token per 32 inline bytes (10 tokens a second at under 3 kbit/s)."""


INPUT_BOUNDS: Final[Mapping[str, InputBound]] = {
    "chat": InputBound(8, 16, 64, 26, 15, 8, 50_000, 5_000, 64),
    "completions": InputBound(2, 16, 0, 23, 0, 2, 0, 0, 0),
    "responses": InputBound(8, 16, 64, 22, 0, 8, 50_000, 5_000, 64),
    "messages": InputBound(8, 16, 1_024, 26, 15, 8, 5_000, 5_000, 64),
    "embeddings": InputBound(2, 16, 0, 22, 0, 2, 5_000, 0, 0),
}
"""Images: OpenAI's tile model of gpt-4o-mini reaches 48,169 tokens, Anthropic's largest image 4,784."""

CONTEXT_TOKENS_UNKNOWN: Final = 200_000
"""Assumed context of a model that does not state one, when the prompt is not all in the body."""

HOSTED_TOOL_CALLS: Final = 8
"""Calls of a hosted tool a hold covers; their number is the model's choice."""

_TOOL_FEES: Final = (
    ("web_search", "web_search"),
    ("openrouter:web_search", "web_search"),
    ("file_search", "file_search"),
    ("code_interpreter", "code_interpreter"),
    ("image_generation", "image"),
    ("web_fetch", ""),
    ("tool_search", ""),
    ("mcp", ""),
)


def tool_fee_kind(tool: str) -> str | None:
    """Kind of fee of a hosted tool's call; "" if it has none, None for an unknown tool (refuse it)."""
    return next((kind for prefix, kind in _TOOL_FEES if tool.startswith(prefix)), None)


def tool_fees(hosted_tools: Iterable[str]) -> dict[str, int]:
    """Kind of fee -> calls to hold for, over the hosted tools that have a fee."""
    kinds = {tool_fee_kind(tool) for tool in hosted_tools}
    return dict.fromkeys(sorted(kind for kind in kinds if kind), HOSTED_TOOL_CALLS)


def input_bound(
    scan: RequestFacts,
    wire_format: str,
    *,
    context_tokens: int | None = None,
    input_bytes_per_token: int = 1,
    image_tokens: int | None = None,
) -> int:
    """Most prompt tokens the request can have.

    One token per `input_bytes_per_token` bytes of text (1 is the bound of any byte-level tokenizer), the
    format's bounds for media (`image_tokens`: the model's own), never above the model's context. What the
    body does not show (server-side context, results of hosted tools) is taken to fill the context.
    """
    bound = INPUT_BOUNDS[wire_format]
    messages = scan.message_count
    text_bytes = max(0, scan.text_bytes - bound.envelope_bytes - bound.message_bytes * messages)
    tokens = (
        bound.request_tokens
        + (bound.tools_tokens if scan.tool_count else 0)
        + bound.message_tokens * messages
        + -(-text_bytes // min(input_bytes_per_token, bound.bytes_per_token))
        + (bound.image_tokens if image_tokens is None else image_tokens) * scan.image_count
        + _inline_tokens(scan, bound)
    )
    if scan.server_context or scan.hosted_tools:
        tokens = max(tokens, CONTEXT_TOKENS_UNKNOWN if context_tokens is None else context_tokens)
    return tokens if context_tokens is None else min(tokens, context_tokens)


def _inline_tokens(scan: RequestFacts, bound: InputBound) -> int:
    if scan.file_count:
        return bound.file_tokens * scan.file_count + 2 * scan.data_bytes
    if scan.audio_count:
        return bound.audio_tokens * scan.audio_count + -(-scan.data_bytes // 32)
    return 0


def output_bound(
    scan: RequestFacts, wire_format: str, assumed_output_tokens: int, output_limit_max: int | None = None
) -> int:
    """Most output tokens: per choice the client's limit, else the assumption, at most the model's."""
    if wire_format == "embeddings":
        return 0
    limit = assumed_output_tokens if scan.output_limit is None else scan.output_limit
    if output_limit_max is not None:
        limit = min(limit, output_limit_max)
    return limit * scan.choices


def hold_bound_pico(
    entry: ModelPrice,
    input_tokens: int,
    output_tokens: int,
    fees: Mapping[str, int] | None = None,
    *,
    variant: str | None = None,
    media: bool = False,
) -> int:
    """Most the request can cost in pico-USD: all input of the dearest kind, in the dearest tier in reach.

    `fees`: calls by kind (`tool_fees`); the exchange's own `call` is always in. `variant`: the service tier
    asked for, held beside the base, as the upstream may serve either. `media`: audio or images occur.
    """
    dearest = 0
    for rates in entry.rates:
        if rates.reached_tokens <= input_tokens and rates.variant in {"", variant}:
            output_pico = output_tokens * (rates.any_output_pico if media else rates.output_pico)
            dearest = max(dearest, _fixed_pico(rates, input_tokens, fees, media) + output_pico)
    return dearest


def fitting_output_tokens(
    entry: ModelPrice,
    input_tokens: int,
    remaining_pico: int,
    fees: Mapping[str, int] | None = None,
    *,
    choices: int = 1,
    variant: str | None = None,
    media: bool = False,
) -> int:
    """Largest limit per choice whose hold fits in `remaining_pico`; 0 if not even the input does."""
    fitting = OUTPUT_TOKENS_MAX
    for rates in entry.rates:
        if rates.reached_tokens > input_tokens or rates.variant not in {"", variant}:
            continue
        left_pico = remaining_pico - _fixed_pico(rates, input_tokens, fees, media)
        if left_pico < 0:
            return 0
        output_pico = (rates.any_output_pico if media else rates.output_pico) * choices
        if output_pico:
            fitting = min(fitting, left_pico // output_pico)
    return fitting


def _fixed_pico(rates: Rates, input_tokens: int, fees: Mapping[str, int] | None, media: bool) -> int:
    total = input_tokens * (rates.any_input_pico if media else rates.input_pico)
    total += rates.unit_pico.get("call", 0)
    for kind, calls in (fees or {}).items():
        if kind not in rates.unit_pico:
            raise InvariantBrokenError(f"a hold was asked for {kind} calls, which this model does not price")
        total += calls * rates.unit_pico[kind]
    return total
