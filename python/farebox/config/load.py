"""Files to `Settings`: read, validate, combine; every problem of every file at once."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from farebox.config.credits import credits_settings
from farebox.config.document import Document, EndpointEntry, ModelEntry
from farebox.config.exact import read_document
from farebox.config.parts import endpoint_table, store_settings
from farebox.config.placement import is_loopback, placed
from farebox.config.problems import ConfigError, Problem, Problems
from farebox.config.rows import model_table
from farebox.config.settings import Endpoint, Service, Settings
from farebox.config.zones import time_zone

Entry = TypeVar("Entry", EndpointEntry, ModelEntry)

SHARED_KEYS = (
    "store",
    "data_dir",
    "journal_dir",
    "workers",
    "durability",
    "lease_wait_s",
    "request_log_ttl_days",
    "console",
    "credits",
)
"""Keys that belong to the whole process set: files that are served together must agree on them."""

_SYSTEM_PROMPT_REFUSED = (
    "is refused: requests go to the upstream unchanged; one of the operator's would alter what users send"
)


def load(paths: list[Path], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of the files served together, in the place `environment` describes (config/placement.py).

    Raises ConfigError with everything that is wrong.
    """
    if not paths:
        raise ConfigError([Problem(Path(), "", "no configuration file was named")])
    found = [Problems(path) for path in paths]
    parsed = [(_document(problems, environment), problems) for problems in found]
    documents = [(document, problems) for document, problems in parsed if document is not None]
    services = [_service(document, problems) for document, problems in documents]
    settings = None
    if documents:
        _check_together(documents, services)
        settings = _settings(documents, services)
    errors = [error for problems in found for error in problems.errors]
    if errors or settings is None:
        raise ConfigError(list(dict.fromkeys(errors)))
    return settings


def read(path: Path) -> Document:
    """One file as written, checked for form only. Raises ConfigError."""
    problems = Problems(path)
    document = _document(problems, {})
    if document is None:
        raise ConfigError(list(dict.fromkeys(problems.errors)))
    return document


def _document(problems: Problems, environment: Mapping[str, str]) -> Document | None:
    values = read_document(problems.file, problems)
    if values is None:
        return None
    values = placed(values, environment)
    try:
        return Document.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems.error(_json_path(detail), _message(detail))
        _judge_the_rest(values, problems)
        return None


def _judge_the_rest(values: dict[str, Any], problems: Problems) -> None:
    """A file of wrong form: its entries of right form are judged too, so that all faults show at once."""
    if values.get("system_prompt"):
        problems.error("system_prompt", _SYSTEM_PROMPT_REFUSED)
    port = values.get("port")
    entries = _entries(EndpointEntry, values.get("endpoints"))
    table = endpoint_table(entries, port if isinstance(port, int) else 0, problems)
    model_table(
        _entries(ModelEntry, values.get("models")), _with_faulty(table, values.get("endpoints")), problems
    )


def _entries(kind: type[Entry], values: object) -> dict[int, Entry]:
    """The entries of a list that have the right form, by their place."""
    entries: dict[int, Entry] = {}
    for index, value in enumerate(values if isinstance(values, list) else []):
        with contextlib.suppress(ValidationError):
            entries[index] = kind.model_validate(value)
    return entries


def _with_faulty(table: Mapping[str, Endpoint], values: object) -> dict[str, Endpoint | None]:
    """The table, and None for every endpoint that is named but was left out of it."""
    listed = values if isinstance(values, list) else []
    named = [value.get("name") for value in listed if isinstance(value, dict)]
    return dict.fromkeys(name for name in named if isinstance(name, str)) | dict(table)


def _json_path(detail: ErrorDetails) -> str:
    path = ""
    for part in detail["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] == "extra_forbidden":
        return "is no key Farebox knows; keys that begin with _comment are ignored"
    return detail["msg"].removeprefix("Value error, ")


def _service(document: Document, problems: Problems) -> Service:
    if document.system_prompt:
        problems.error("system_prompt", _SYSTEM_PROMPT_REFUSED)
    if document.console.port == document.port:
        problems.error(
            "console.port", f"is the service's own port {document.port}; the console has a port of its own"
        )
    if not document.models:
        problems.error("models", "no model is listed")
    endpoints = endpoint_table(dict(enumerate(document.endpoints)), document.port, problems)
    named: dict[str, Endpoint | None] = dict.fromkeys(entry.name for entry in document.endpoints)
    named.update(endpoints)
    return Service(
        name=document.name or problems.file.stem.lower(),
        file=problems.file,
        host=document.host,
        port=document.port,
        worker_sockets=Path(document.worker_sockets) if document.worker_sockets else None,
        endpoints=endpoints,
        models=model_table(dict(enumerate(document.models)), named, problems),
        user_agent=document.user_agent,
        requests_per_minute=document.limits.requests_per_minute,
        body_bytes_max=document.limits.body_bytes,
        stream_dry_policy=document.stream_dry.policy,
        stream_dry_cap_pico=problems.pico(document.stream_dry.cap, "stream_dry.cap"),
        written_off_per_user_pico_max=problems.pico(document.written_off_cap, "written_off_cap"),
    )


def _check_together(documents: list[tuple[Document, Problems]], services: list[Service]) -> None:
    """Files served together: own names and ports, one opinion about everything that is shared."""
    first, first_problems = documents[0]
    for index, (document, problems) in enumerate(documents[1:], start=1):
        for key in SHARED_KEYS:
            if getattr(document, key) != getattr(first, key):
                problems.error(key, f"differs from {first_problems.file}; files served together share it")
        for other in services[:index]:
            if services[index].name == other.name:
                problems.error("name", f"{other.name!r} is also the name of {other.file}")
            if services[index].port == other.port:
                problems.error("port", f"{other.port} is also the port of {other.file}")


def _settings(documents: list[tuple[Document, Problems]], services: list[Service]) -> Settings | None:
    document, problems = documents[0]
    data_dir = Path(document.data_dir)
    store = store_settings(document.store, data_dir, problems)
    if store is None:
        return None
    if not is_loopback(document.console.host):
        problems.warn(
            "console.host",
            f"{document.console.host} is reached from other machines: administration and payments pass "
            "there in the clear; let only a private network or a TLS proxy reach it",
        )
    return Settings(
        services=tuple(services),
        store=store,
        data_dir=data_dir,
        journal_dir=Path(document.journal_dir) if document.journal_dir else data_dir / "journals",
        workers=document.workers,
        durability=document.durability,
        lease_wait_s=document.lease_wait_s,
        request_log_ttl_days=document.request_log_ttl_days,
        console_host=document.console.host,
        console_port=document.console.port,
        console_hosts=frozenset(name.lower() for name in (document.console.host, *document.console.hosts)),
        console_zone=time_zone(document.console.time_zone, "console.time_zone", problems),
        credits=credits_settings(document.credits, problems),
        warnings=tuple(warning for _, found in documents for warning in found.warnings),
    )
