"""The result of loading: frozen values that the rest of Farebox works with.

One `Settings` per process set; one `Service` per configuration file (a port with its endpoints and models). A
`ModelRow` carries everything an exchange needs of its model, so that name, price, wallet and upstream id can
never come from different entries.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import TypedDict

from farebox.base.redaction import Secret
from farebox.config.credits import CreditsSettings
from farebox.config.problems import Problem

ROUTES: Mapping[str, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
}
"""Wire format -> path of its route, the same at Farebox and at an upstream's root."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One upstream address and credential. `prefix` is the path before /v1, without a slash at its end.

    `alternatives` are more of the same API; theirs are empty. Requests are shared out by `weight`.
    """

    name: str
    tls: bool
    host: str
    port: int
    prefix: str
    wire_formats: tuple[str, ...]
    auth: str
    api_key_env: str | None
    api_key_file: Path | None
    connect_timeout_s: float
    first_byte_timeout_s: float
    idle_timeout_s: float
    total_timeout_s: float
    ca_file: Path | None
    inject_include_usage: bool
    weight: int
    connections_max: int
    alternatives: tuple["Endpoint", ...]

    def places(self) -> tuple["Endpoint", ...]:
        """Itself and its alternatives."""
        return (self, *self.alternatives)

    @property
    def authority(self) -> str:
        """Value of the Host header: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def path(self, wire_format: str) -> str:
        """Request target for a wire format."""
        return self.prefix + ROUTES[wire_format]

    def url(self, wire_format: str) -> str:
        """Full address for a wire format, for people and logs; it holds no credential."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path(wire_format)}"


class PlainPrice(TypedDict):
    """One model's entry of the price book, JSON-ready; `meter.model_price` compiles it."""

    lines: dict[str, str]
    multiplier: str
    tiers: list[tuple[int, bool, dict[str, str]]]
    variants: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model as served: every fact from one entry of one file.

    `ids` starts with the canonical id, aliases follow. `upstream_model` is the id to send. `price` is one
    model's entry of the price book (see `prices`). `priced_fields` maps a request field that
    changes the price to the values this model prices, each with its variant's name in `price`. Token bounds
    are for holds only.
    """

    ids: tuple[str, ...]
    name: str
    type: str | None
    upstream: str
    upstream_model: str
    wallet: str
    pools: tuple[str, ...]
    endpoints: Mapping[str, Endpoint]
    price: PlainPrice
    priced_fields: Mapping[str, Mapping[str, str]]
    free: bool
    context_tokens: int | None
    max_output_tokens: int | None
    assumed_output_tokens: int
    input_bytes_per_token: int

    @property
    def id(self) -> str:
        """The canonical id: price book, log rows and permissions use it."""
        return self.ids[0]


class ModelTable:
    """Exact look-up of models by id or alias, in the file's order; never by prefix, pattern or default."""

    __slots__ = ("_by_name", "rows")

    def __init__(self, rows: tuple[ModelRow, ...]) -> None:
        self.rows = rows
        self._by_name = {name: row for row in rows for name in row.ids}

    def get(self, name: str) -> ModelRow | None:
        """The row a client's model name stands for."""
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[ModelRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Service:
    """One configuration file: a port, the endpoints behind it, the models it sells.

    `worker_sockets`: the folder in which each worker has a unix socket as well, for a proxy in front.
    """

    name: str
    file: Path
    host: str
    port: int
    worker_sockets: Path | None
    endpoints: Mapping[str, Endpoint]
    models: ModelTable
    user_agent: str
    requests_per_minute: int
    body_bytes_max: int
    stream_dry_policy: str
    stream_dry_cap_pico: int
    written_off_per_user_pico_max: int

    def price_book(self) -> dict[str, PlainPrice]:
        """Model id -> price entry: the content of this service's price-book versions."""
        return {row.id: row.price for row in self.models}


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where balances live: `kind` is sqlite (with `path`) or mongodb (with a URL that may be secret)."""

    kind: str
    path: Path | None
    url: Secret | None
    url_env: str | None
    url_file: Path | None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `farebox serve` works with. `workers` None means one per core."""

    services: tuple[Service, ...]
    store: StoreSettings
    data_dir: Path
    journal_dir: Path
    workers: int | None
    durability: str
    lease_wait_s: float
    request_log_ttl_days: int
    console_host: str
    console_port: int
    console_hosts: frozenset[str]
    console_zone: tzinfo
    credits: CreditsSettings
    warnings: tuple[Problem, ...]

    def service(self, name: str) -> Service | None:
        """The service of that name."""
        return next((service for service in self.services if service.name == name), None)
