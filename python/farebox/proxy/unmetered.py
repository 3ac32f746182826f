"""Requests that cost nothing: health, model lists, a key's own balance; token counts, which are forwarded."""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import orjson

from farebox.base.errors import Refusal, Refused
from farebox.config.settings import Service
from farebox.proxy.access import Access
from farebox.proxy.forward import Forward
from farebox.proxy.health import Place
from farebox.proxy.own_routes import (
    anthropic_model,
    anthropic_models,
    credits_of,
    openai_model,
    openai_models,
)
from farebox.proxy.refusals import KEY_NOT_VALID, asked_family
from farebox.proxy.scanning import scan_somewhere
from farebox.proxy.worker import Worker
from farebox.wire.errors import JSON_LINE
from farebox.wire.incoming import Incoming
from farebox.wire.routes import Route
from farebox.wire.upstream import Pool


class Unmetered:
    """Answers one service's requests that need no money."""

    def __init__(
        self, worker: Worker, service: Service, access: Access, places: Mapping[str, Sequence[Place[Pool]]]
    ) -> None:
        """`places`: endpoint name -> where its requests may go."""
        self._worker = worker
        self._service = service
        self._access = access
        self._places = places

    def answer(self, client: Incoming, route: Route, exchange_id: str) -> Coroutine[Any, Any, None] | None:
        """Answer it; what is returned must be awaited. Raises Refused, here or when awaited."""
        if route.name == "count_tokens":
            return self._forwarded(client, route, exchange_id)
        if route.name == "healthz":
            _answer_json(client, 200, {"status": "ok"})
        elif route.name == "readyz":
            reason = self._not_ready()
            status = {"status": "ready"} if not reason else {"status": "not ready", "reason": reason}
            _answer_json(client, 503 if reason else 200, status)
        else:
            return self._own(client, route)
        return None

    def _not_ready(self) -> str:
        """Why metered requests are refused; empty where they are not."""
        worker = self._worker
        if worker.draining:
            return "draining"
        return "memory is short" if worker.memory_short else worker.ready()

    async def _forwarded(self, client: Incoming, route: Route, exchange_id: str) -> None:
        key = await self._access.find_key(client)
        self._access.counted(key, self._worker.wall_ms())
        client.require_json()
        body = await client.body(self._service.body_bytes_max)
        scanned = await scan_somewhere(body, "messages")
        model = self._access.model(scanned.model, route, key)
        if model.upstream_model != scanned.model:
            body = scanned.edited(body, model.upstream_model, False)
        await Forward(client, route, exchange_id).run(self._places[model.endpoints[route.name].name], body)

    async def _own(self, client: Incoming, route: Route) -> None:
        key = await self._access.find_key(client)
        self._access.check_key(key, self._worker.wall_ms())
        if route.name == "credits":
            account = await self._worker.store.account(key.user)
            if account is None:
                raise Refused(Refusal.KEY_REVOKED, KEY_NOT_VALID)
            _answer_json(client, 200, credits_of(account, self._worker.wall_ms()))
            return
        anthropic = asked_family(client) == "anthropic"
        if route.model:
            row = self._access.allowed_model(route.model, key)
            _answer_json(client, 200, anthropic_model(row) if anthropic else openai_model(row))
            return
        rows = [
            row for row in self._service.models if key.allowed_models is None or row.id in key.allowed_models
        ]
        _answer_json(client, 200, anthropic_models(rows) if anthropic else openai_models(rows))


def _answer_json(client: Incoming, status: int, value: object) -> None:
    client.answer(status, JSON_LINE, orjson.dumps(value))
