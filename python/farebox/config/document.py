"""The configuration file as written: every key it may hold, its type and its default.

Keys of the replaced system keep their names and spelling. Strict: no conversions, no unknown keys; objects
are frozen. What needs more than one value to judge (prices that fit the wire formats, names that exist) is
judged in `rows`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from farebox.base import limits as bounds
from farebox.config.credits_document import CreditsEntry
from farebox.config.exact import ExactDecimal, Seconds

Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[int, Field(ge=1, le=1000)]
Connections = Annotated[int, Field(ge=1, le=bounds.upstream_connections_max)]
Timeout = Annotated[Seconds, Field(gt=0, le=86400)]
Name = Annotated[str, Field(min_length=1, max_length=bounds.model_name_bytes_max, pattern=r"^[\x21-\x7e]+$")]
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

WireFormat = Literal["chat", "completions", "responses", "embeddings", "messages", "count_tokens"]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", defer_build=True)


class AlternativeEntry(_Entry):
    """Another place of the same API: its own address, its own credential, or both."""

    base_url: str | None = Field(default=None, description="Default: the endpoint's")
    api_key_env: str | None = Field(
        default=None, description="Environment variable that holds the credential"
    )
    api_key_file: str | None = Field(default=None, description="File that holds the credential")
    weight: Weight = Field(default=1, description="Share of the requests, beside the other places' weights")
    connections_max: Connections = bounds.upstream_connections_max


class EndpointEntry(_Entry):
    """Where an upstream listens and how Farebox signs in there."""

    name: Name
    base_url: str = Field(description="Root of the API; a trailing /v1 or route is understood")
    wire_formats: list[WireFormat] | None = Field(
        default=None, description="Default by the name's end: -openai or -anthropic"
    )
    auth: Literal["bearer", "x-api-key"] | None = Field(
        default=None,
        description="Header that carries the credential; default x-api-key for *anthropic, else bearer",
    )
    api_key_env: str | None = Field(
        default=None, description="Environment variable that holds the credential"
    )
    api_key_file: str | None = Field(default=None, description="File that holds the credential")
    connect_timeout_s: Timeout = bounds.upstream_connect_timeout_s
    first_byte_timeout_s: Timeout = bounds.upstream_first_byte_timeout_s
    idle_timeout_s: Timeout = bounds.upstream_idle_stream_timeout_s
    total_timeout_s: Timeout = bounds.upstream_total_timeout_s
    ca_file: str | None = Field(
        default=None, description="PEM file of certificate authorities; default the system's"
    )
    inject_include_usage: bool = Field(
        default=True, description="Ask for the usage chunk where a client streams chat completions without it"
    )
    weight: Weight = Field(default=1, description="Share of the requests, beside its alternatives' weights")
    connections_max: Connections = Field(
        default=bounds.upstream_connections_max, description="Requests that run at once, per worker"
    )
    alternatives: list[AlternativeEntry] = Field(
        default=[],
        max_length=bounds.upstream_alternatives_max,
        description="More addresses and credentials of the same API",
    )


class PriceLines(_Entry):
    """Prices in USD per million tokens."""

    input_price_per_mtok: ExactDecimal | None = None
    output_price_per_mtok: ExactDecimal | None = None
    cache_write_price_per_mtok: ExactDecimal | None = Field(default=None, description="5-minute cache writes")
    cache_write_1h_price_per_mtok: ExactDecimal | None = None
    cache_hit_price_per_mtok: ExactDecimal | None = None
    audio_input_price_per_mtok: ExactDecimal | None = None
    audio_output_price_per_mtok: ExactDecimal | None = None
    image_input_price_per_mtok: ExactDecimal | None = None
    image_output_price_per_mtok: ExactDecimal | None = None


class ContextTier(PriceLines):
    """Prices of a whole request whose prompt is `above` so many tokens, or reaches them (`from`)."""

    above: Positive | None = None
    from_: Positive | None = Field(default=None, alias="from")


class VariantPrices(PriceLines):
    """Prices of one value of a request field; its tiers repeat the thresholds of the model's."""

    context_tiers: list[ContextTier] = []


class PerCall(_Entry):
    """Fees in USD for each call or unit, on top of tokens."""

    call: ExactDecimal | None = Field(default=None, description="Every exchange")
    web_search: ExactDecimal | None = None
    file_search: ExactDecimal | None = None
    code_interpreter: ExactDecimal | None = None
    image: ExactDecimal | None = None
    second: ExactDecimal | None = None


class ModelEntry(PriceLines):
    """One model: what clients call it, what it is upstream, what it costs and which wallet pays."""

    name: str = Field(min_length=1, description="For people")
    id: Name
    id_aliases: list[Name] = []
    type: Literal["anthropic", "openai", "openhands", "ohmygpt"] | None = None
    reasoning: Literal["low", "medium", "high"] | None = Field(
        default=None, description="Only sizes the hold"
    )
    thinking_budget: Positive | None = Field(default=None, description="Only sizes the hold")
    batch_input_price_per_mtok: ExactDecimal | None = None
    batch_output_price_per_mtok: ExactDecimal | None = None
    billing_multiplier: ExactDecimal = "1"
    upstream: Name | None = Field(
        default=None, description="Provider: openhands, ohmygpt, openai, anthropic, main"
    )
    upstream_model_id: str | list[str] | None = Field(default=None, description="One id; a list is refused")
    upstream_model_weights: object = Field(
        default=None, description="Refused: what is billed is what is served"
    )
    billing_upstream: str | None = Field(
        default=None, description="Wallet: ohmygpt, openhands or subscription"
    )
    context_tiers: list[ContextTier] = []
    per_call: PerCall = PerCall()
    service_tiers: dict[VariantName, VariantPrices] = {}
    price_fields: dict[Literal["speed", "inference_geo"], dict[VariantName, VariantPrices]] = {}
    free: bool = Field(default=False, description="Charged nothing, said on purpose")
    wire_formats: list[WireFormat] | None = Field(
        default=None, description="Default: all its endpoints serve"
    )
    endpoint: str | list[str] | None = Field(
        default=None, description="Endpoint names instead of the upstream's"
    )
    context_tokens: Positive | None = None
    max_output_tokens: Positive | None = None
    assumed_output_tokens: Positive | None = Field(
        default=None, description="Held where the client sets no limit"
    )
    input_bytes_per_token: Positive = Field(default=1, description="Lower bound of prompt bytes per token")


class StoreEntry(_Entry):
    """Where balances live. A MongoDB URL with a password comes from the environment or a file."""

    url: str | None = Field(default=None, description="sqlite:///PATH or mongodb://HOST/DATABASE")
    url_env: str | None = None
    url_file: str | None = None


class LimitsEntry(_Entry):
    """Limits of one service."""

    requests_per_minute: Positive = Field(default=bounds.requests_per_minute, description="Per key")
    body_bytes: Positive = Field(default=bounds.request_body_bytes_max, le=bounds.request_body_bytes_max)


class ConsoleEntry(_Entry):
    """The administration port."""

    host: str = "127.0.0.1"
    port: Port = 8090
    hosts: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]] = Field(
        default=[], description="Names under which browsers reach the console, beside loopback's and `host`"
    )
    time_zone: str = Field(default="Asia/Ho_Chi_Minh", description="In which a day begins at 00:00")


class StreamDryEntry(_Entry):
    """What happens to a stream whose wallet runs dry."""

    policy: Literal["cut", "finish"] = "cut"
    cap: ExactDecimal = Field(default="0", description="USD written off per exchange at most, for `finish`")


class Document(_Entry):
    """A configuration file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = None
    host: str = "127.0.0.1"
    port: Port
    worker_sockets: str | None = Field(
        default=None,
        description="Folder for a unix socket of each worker, NAME-0.sock on, for a proxy in front",
    )
    endpoints: list[EndpointEntry]
    models: list[ModelEntry]
    user_agent: Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,200}$")] = "farebox/0.1.0"
    system_prompt: str | None = None
    limits: LimitsEntry = LimitsEntry()
    stream_dry: StreamDryEntry = StreamDryEntry()
    written_off_cap: ExactDecimal = Field(
        default="1", description="USD per user after which new exchanges are refused"
    )
    store: StoreEntry = StoreEntry()
    data_dir: str = "farebox-data"
    journal_dir: str | None = Field(default=None, description="Default: journals in data_dir")
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="Default: one per core"
    )
    durability: Literal["process", "disk"] = "process"
    lease_wait_s: Annotated[Seconds, Field(ge=0, le=60)] = bounds.lease_wait_s
    request_log_ttl_days: Annotated[int, Field(ge=1, le=3650)] = bounds.request_log_ttl_days
    console: ConsoleEntry = ConsoleEntry()
    credits: CreditsEntry = CreditsEntry()
