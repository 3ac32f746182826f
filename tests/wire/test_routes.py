"""No path but the listed ones leads anywhere: nothing is served unmetered."""

import pytest

from farebox.base.errors import Refusal, Refused
from farebox.wire.routes import family_of, match


@pytest.mark.parametrize(
    ("method", "path", "name", "family", "metered"),
    [
        ("POST", "/v1/chat/completions", "chat", "openai", True),
        ("POST", "/v1/completions", "completions", "openai", True),
        ("POST", "/v1/responses", "responses", "openai", True),
        ("POST", "/v1/embeddings", "embeddings", "openai", True),
        ("POST", "/v1/messages", "messages", "anthropic", True),
        ("POST", "/v1/messages/count_tokens", "count_tokens", "anthropic", False),
        ("GET", "/v1/models", "models", "openai", False),
        ("GET", "/v1/credits", "credits", "openai", False),
        ("GET", "/healthz", "healthz", "openai", False),
        ("GET", "/health", "healthz", "openai", False),
        ("GET", "/readyz", "readyz", "openai", False),
    ],
)
def test_listed_routes(method: str, path: str, name: str, family: str, metered: bool) -> None:
    route = match(method, path)
    assert (route.name, route.family, route.metered, route.model) == (name, family, metered, "")
    assert family_of(path) == family


@pytest.mark.parametrize("model", ["gpt-5", "claude-sonnet-4-5@20250929", "vendor/model:free", "a.b"])
def test_one_model(model: str) -> None:
    route = match("GET", f"/v1/models/{model}")
    assert (route.name, route.model) == ("models", model)


@pytest.mark.parametrize(
    "path",
    ["", "/", "//v1/messages", "/v1//messages", "/v1/../admin", "/v1/%6dessages", "/v1%2fmessages",
     "/v1/messages/",
     "/v1/messages;x", "/v1/messages.", "/V1/messages", "/v1/chat/completions/", "/v1/messages\0",
     "/v1/responses/resp_1", "/v1/messages/batches", "/v1/files", "/admin", "/metrics", "/v1/models/",
     "/v1/models/..", "/v1/models/a/../b", "/v1/models/a//b", "/v1/models/%2e%2e", "/v1/models/a b",
     "/v1/models/" + "x" * 300, "/v1/m\udcc0\udcafessages"],
)  # fmt: skip
def test_B20_H14_everything_else_is_refused(path: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(Refused) as caught:
            match(method, path)
        assert caught.value.refusal is Refusal.ROUTE


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/messages", "POST"), ("OPTIONS", "/v1/messages", "POST"), ("POST", "/v1/models", "GET"),
     ("HEAD", "/healthz", "GET"), ("DELETE", "/v1/models/x", "GET"), ("TRACE", "/v1/responses", "POST")],
)  # fmt: skip
def test_H15_other_methods_name_the_right_one(method: str, path: str, allowed: str) -> None:
    with pytest.raises(Refused) as caught:
        match(method, path)
    assert (caught.value.refusal, caught.value.details) == (Refusal.METHOD, {"allow": allowed})
