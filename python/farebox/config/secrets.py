"""The one place that reads credentials: from the environment or from files, on demand."""

import os
from collections.abc import Mapping
from pathlib import Path

from farebox.base.redaction import Secret
from farebox.config.problems import ConfigError, Problem
from farebox.config.settings import Endpoint, Settings, StoreSettings


def credentials(
    settings: Settings, environment: Mapping[str, str] = os.environ
) -> dict[tuple[str, str], Secret]:
    """(service, endpoint) -> upstream credential; endpoints without one are left out. Raises ConfigError, all
    at once.

    Read it at start and again on reload: a credential is rotated by changing its file or environment.
    """
    found: dict[tuple[str, str], Secret] = {}
    missing: list[Problem] = []
    for service in settings.services:
        for endpoint in (place for each in service.endpoints.values() for place in each.places()):
            try:
                secret = _credential(endpoint, environment)
            except LookupError as error:
                missing.append(Problem(service.file, f"endpoint {endpoint.name}", str(error.args[0])))
                continue
            if secret is not None:
                found[service.name, endpoint.name] = secret
    if missing:
        raise ConfigError(missing)
    return found


def store_url(store: StoreSettings, file: Path, environment: Mapping[str, str] = os.environ) -> Secret | None:
    """The MongoDB URL; None for SQLite. Raises ConfigError naming `file` where it is missing."""
    if store.url is not None or store.kind == "sqlite":
        return store.url
    try:
        return _read(store.url_env, store.url_file, environment)
    except LookupError as error:
        raise ConfigError([Problem(file, "store", str(error.args[0]))]) from None


def payment_secrets(settings: Settings, environment: Mapping[str, str] = os.environ) -> dict[str, Secret]:
    """Payment provider -> the secret its deliveries are checked with. Raises ConfigError, all at once."""
    sepay, stripe = settings.credits.sepay, settings.credits.stripe
    places = {
        "sepay": sepay.api_key if sepay is not None else None,
        "stripe": stripe.webhook_secret if stripe is not None else None,
    }
    found: dict[str, Secret] = {}
    missing: list[Problem] = []
    for provider, place in places.items():
        if place is None:
            continue
        try:
            found[provider] = _read(place.variable, place.file, environment)
        except LookupError as error:
            missing.append(Problem(settings.services[0].file, f"credits.{provider}", str(error.args[0])))
    if missing:
        raise ConfigError(missing)
    return found


def _credential(endpoint: Endpoint, environment: Mapping[str, str]) -> Secret | None:
    if endpoint.api_key_env is None and endpoint.api_key_file is None:
        return None
    return _read(endpoint.api_key_env, endpoint.api_key_file, environment)


def _read(variable: str | None, file: Path | None, environment: Mapping[str, str]) -> Secret:
    """The secret; LookupError with a sentence for the operator where there is none."""
    if variable is not None:
        value = environment.get(variable, "").strip()
        if not value:
            raise LookupError(f"the environment variable {variable} is not set")
    else:
        try:
            value = file.read_text(encoding="utf-8").strip() if file is not None else ""
        except (OSError, UnicodeDecodeError) as error:
            raise LookupError(f"the credential file {file} cannot be read: {error}") from None
        if not value:
            raise LookupError(f"the credential file {file} is empty")
    if not value.isascii() or not value.isprintable():
        raise LookupError(f"the credential of {variable or file} holds characters a header cannot carry")
    return Secret(value)
