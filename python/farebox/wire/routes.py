"""The route table: exact matches only. What is not listed is refused, never passed through (B20, H14)."""

from dataclasses import dataclass
from typing import Final, Literal

from farebox.base import limits
from farebox.base.errors import Refusal, Refused

Family = Literal["openai", "anthropic"]
"""Whose error and list shapes a route speaks."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way in. `name` is the wire format of a metered route, else the name of an own answer.

    `metered`: a POST that is forwarded and priced. `model`: the id at the end of /v1/models/{id}, else empty.
    """

    method: str
    path: str
    name: str
    family: Family
    metered: bool = False
    model: str = ""


_ROUTES: Final = (
    Route("POST", "/v1/chat/completions", "chat", "openai", metered=True),
    Route("POST", "/v1/completions", "completions", "openai", metered=True),
    Route("POST", "/v1/responses", "responses", "openai", metered=True),
    Route("POST", "/v1/embeddings", "embeddings", "openai", metered=True),
    Route("POST", "/v1/messages", "messages", "anthropic", metered=True),
    Route("POST", "/v1/messages/count_tokens", "count_tokens", "anthropic"),
    Route("GET", "/v1/models", "models", "openai"),
    Route("GET", "/v1/credits", "credits", "openai"),
    Route("GET", "/healthz", "healthz", "openai"),
    Route("GET", "/health", "healthz", "openai"),
    Route("GET", "/readyz", "readyz", "openai"),
)
_BY_PATH: Final = {route.path: route for route in _ROUTES}
_MODEL_PREFIX: Final = "/v1/models/"
_MODEL_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@+-/")


def match(method: str, path: str) -> Route:
    """The route of an exact method and path. Raises Refused ROUTE, or METHOD with the allowed one in
    `details`.
    """
    route = _BY_PATH.get(path) or _model_route(path)
    if route is None:
        raise Refused(Refusal.ROUTE, "There is no such route here.")
    if route.method != method:
        raise Refused(Refusal.METHOD, f"Use {route.method} on this route.", details={"allow": route.method})
    return route


def family_of(path: str) -> Family:
    """Whose shapes to answer a path in, known route or not."""
    return "anthropic" if path.startswith("/v1/messages") else "openai"


def _model_route(path: str) -> Route | None:
    if not path.startswith(_MODEL_PREFIX):
        return None
    model = path[len(_MODEL_PREFIX) :]
    if not model or len(model) > limits.model_name_bytes_max or not _MODEL_CHARACTERS.issuperset(model):
        return None
    if any(segment in {"", ".", ".."} for segment in model.split("/")):
        return None
    return Route("GET", path, "models", "openai", model=model)
