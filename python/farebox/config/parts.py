"""Endpoints and the store's address: pure functions from entries to settings."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from farebox.base.redaction import Secret
from farebox.config.document import AlternativeEntry, EndpointEntry, StoreEntry
from farebox.config.problems import Problems
from farebox.config.settings import ROUTES, Endpoint, StoreSettings

OPENAI_FORMATS = ("chat", "completions", "responses", "embeddings")
ANTHROPIC_FORMATS = ("messages", "count_tokens")
_SQLITE = "sqlite:///"
_MONGODB = ("mongodb://", "mongodb+srv://")
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::")


def endpoint_table(
    entries: Mapping[int, EndpointEntry], own_port: int, problems: Problems
) -> dict[str, Endpoint]:
    """Endpoints by name; `entries` by their place in the file. Faulty ones are reported and left out."""
    table: dict[str, Endpoint] = {}
    for index, entry in entries.items():
        path = f"endpoints[{index}]"
        if entry.name in table:
            problems.error(f"{path}.name", f"the endpoint {entry.name!r} is listed twice")
            continue
        endpoint = _endpoint(entry, path, own_port, problems)
        if endpoint is not None:
            table[entry.name] = endpoint
    return table


def _endpoint(entry: EndpointEntry, path: str, own_port: int, problems: Problems) -> Endpoint | None:
    if not _formats(entry):
        problems.error(
            f"{path}.wire_formats",
            "say which wire formats it serves, or end its name in -openai or -anthropic",
        )
    main = _place(entry, entry, entry.name, path, own_port, problems)
    others = []
    for index, own in enumerate(entry.alternatives):
        here = f"{path}.alternatives[{index}]"
        if own.base_url is None and own.api_key_env is None and own.api_key_file is None:
            problems.error(here, "names neither another address nor another credential")
        others.append(_place(entry, own, f"{entry.name}/{index + 2}", here, own_port, problems))
    if main is None or not _formats(entry):
        return None
    return replace(main, alternatives=tuple(other for other in others if other is not None))


def _place(
    entry: EndpointEntry,
    own: EndpointEntry | AlternativeEntry,
    name: str,
    path: str,
    own_port: int,
    problems: Problems,
) -> Endpoint | None:
    """One address and credential of an endpoint: `own` says what is its own, `entry` the rest."""
    _check_credential(own, name, path, problems)
    url = _http_url(own.base_url or entry.base_url, f"{path}.base_url", own_port, problems)
    if url is None:
        return None
    return Endpoint(
        name=name,
        tls=url.scheme == "https",
        host=url.hostname or "",
        port=url.port or (443 if url.scheme == "https" else 80),
        prefix=_prefix(url.path),
        wire_formats=_formats(entry),
        auth=entry.auth or ("x-api-key" if entry.name.endswith("anthropic") else "bearer"),
        api_key_env=own.api_key_env,
        api_key_file=Path(own.api_key_file) if own.api_key_file else None,
        connect_timeout_s=entry.connect_timeout_s,
        first_byte_timeout_s=entry.first_byte_timeout_s,
        idle_timeout_s=entry.idle_timeout_s,
        total_timeout_s=entry.total_timeout_s,
        ca_file=Path(entry.ca_file) if entry.ca_file else None,
        inject_include_usage=entry.inject_include_usage,
        weight=own.weight,
        connections_max=own.connections_max,
        alternatives=(),
    )


def _check_credential(
    entry: EndpointEntry | AlternativeEntry, name: str, path: str, problems: Problems
) -> None:
    if entry.api_key_env is not None and entry.api_key_file is not None:
        problems.error(path, "api_key_env and api_key_file are both given; keep one")
    if entry.api_key_env is None and entry.api_key_file is None:
        problems.warn(path, f"the endpoint {name!r} has no credential (api_key_env or api_key_file)")


def _formats(entry: EndpointEntry) -> tuple[str, ...]:
    """What it serves: as said, or by its name; empty where neither tells."""
    if entry.wire_formats:
        return tuple(entry.wire_formats)
    if entry.name.endswith("openai"):
        return OPENAI_FORMATS
    if entry.name.endswith("anthropic"):
        return ANTHROPIC_FORMATS
    return ()


def _prefix(path: str) -> str:
    """The path before /v1: base URLs are written as a root, with /v1, or as a full route."""
    for route in sorted(ROUTES.values(), key=len, reverse=True):
        if path.endswith(route):
            return path[: -len(route)]
    return path.rstrip("/").removesuffix("/v1").rstrip("/")


def _http_url(text: str, path: str, own_port: int, problems: Problems) -> SplitResult | None:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        problems.error(path, f"is not a URL: {error}")
        return None
    if url.scheme not in {"http", "https"} or not url.hostname:
        problems.error(path, "must be an http:// or https:// URL with a host")
    elif url.username is not None or url.password is not None:
        problems.error(path, "must not hold a credential; use api_key_env or api_key_file")
    elif url.query or url.fragment or any(character <= " " or character > "~" for character in text):
        problems.error(path, "must not hold a query, a fragment, spaces or characters outside ASCII")
    elif url.hostname in _LOOPBACK and port == own_port:
        problems.error(path, f"is this service's own port {own_port}: requests would run in a circle")
    else:
        return url
    return None


def store_settings(entry: StoreEntry, data_dir: Path, problems: Problems) -> StoreSettings | None:
    """The store's address. A relative SQLite path lies in `data_dir`."""
    given = [name for name in ("url", "url_env", "url_file") if getattr(entry, name) is not None]
    if len(given) > 1:
        problems.error("store", f"{' and '.join(given)} are given; keep one")
        return None
    if entry.url_env is not None or entry.url_file is not None:
        file = Path(entry.url_file) if entry.url_file else None
        return StoreSettings("mongodb", None, None, entry.url_env, file)
    url = entry.url or f"{_SQLITE}farebox.sqlite"
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        return StoreSettings("sqlite", data_dir / url.removeprefix(_SQLITE), None, None, None)
    if url.startswith(_MONGODB) and "@" not in url:
        return StoreSettings("mongodb", None, Secret(url), None, None)
    if url.startswith(_MONGODB):
        problems.error("store.url", "must not hold a credential; put the URL into url_env or url_file")
    else:
        problems.error("store.url", "must be sqlite:///PATH or mongodb://HOST/DATABASE")
    return None
