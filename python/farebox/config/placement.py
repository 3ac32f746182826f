"""What the place decides in which Farebox runs: the same files then serve on a host and in containers.

| environment variable | instead of | for |
|---|---|---|
| FAREBOX_STORE_URL | `store` | a database that has another name in each place; the URL may hold a password |
| FAREBOX_CONSOLE_HOST | `console.host` | a container, whose loopback nobody else reaches |
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

STORE_VARIABLE = "FAREBOX_STORE_URL"
CONSOLE_HOST_VARIABLE = "FAREBOX_CONSOLE_HOST"


def placed(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """A file's values with what the environment says; empty variables say nothing."""
    result = dict(values)
    if environment.get(STORE_VARIABLE):
        result["store"] = {"url_env": STORE_VARIABLE}
    console = result.get("console", {})
    if environment.get(CONSOLE_HOST_VARIABLE) and isinstance(console, dict):
        result["console"] = {**console, "host": environment[CONSOLE_HOST_VARIABLE]}
    return result


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there; a name other than localhost is not resolved."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
