"""The console's HTTP side: one table of routes, and what every request passes on its way to its row.

Order: room for one more, route, body within its bound, credential and role, Idempotency-Key, body's form,
handler. Promises: every answer is JSON (metrics apart), every error one clear object; nothing of a request
but its method, path and status is logged; a failure here touches no other port.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel, ValidationError

from farebox.base import limits
from farebox.base.clock import wall_ms
from farebox.base.errors import FareboxError, UsageError
from farebox.config.credits import CreditsSettings
from farebox.console import (
    accounts,
    logins,
    openapi,
    operations,
    purchases,
    reports,
    sessions,
    subscriptions,
    wallets,
)
from farebox.console.access import LOOPBACK_HOSTS, admitted, presented
from farebox.console.answers import Declined, declined
from farebox.console.figures import Figures
from farebox.console.lockout import Attempts
from farebox.console.metrics import CONTENT_TYPE, FareboxCollector
from farebox.console.pages import operator, shown, user
from farebox.console.pages.site import Live, add_pages, nobody
from farebox.console.routes import Call, Reply, Route
from farebox.console.webhooks import Webhooks
from farebox.credits.notices import Provider
from farebox.store.base import Store

ROUTES: Final = (
    *logins.ROUTES,
    *reports.ROUTES,
    *accounts.ROUTES,
    *operations.ROUTES,
    *purchases.ROUTES,
    *subscriptions.ROUTES,
    *wallets.ROUTES,
)
PAGES: Final = (*operator.PAGES, *user.PAGES, *shown.PAGES)
PROVIDERS: Final = ("sepay", "stripe")
_KEY: Final = re.compile(r"[\x21-\x7e]{8,100}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Console:
    """What the console works with."""

    store: Store
    settings: CreditsSettings
    providers: Mapping[str, Provider]
    counters: Callable[[], Iterable[Path]]
    writer_status: Path
    hosts: frozenset[str] = LOOPBACK_HOSTS
    """The names under which browsers may come."""
    zone: tzinfo = UTC
    """In which days begin at 00:00."""
    live: Live = nobody
    """Asks the workers for the exchanges under way (`proxy/gauges.py` says their members)."""


def application(console: Console) -> web.Application:
    """Every route, ready to serve."""
    registry = CollectorRegistry(auto_describe=False)
    figures = Figures(console.store)
    registry.register(FareboxCollector(console.counters, console.writer_status, figures))
    webhooks = Webhooks(console.settings, console.providers, registry)
    app = web.Application(
        middlewares=[_answering(asyncio.Semaphore(limits.console_requests_open_max))],
        client_max_size=limits.webhook_body_bytes_max,
    )
    app.router.add_get("/metrics", _metrics(registry, figures))
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/api/openapi.json", _openapi())
    for provider in PROVIDERS:
        app.router.add_post(f"/webhooks/{provider}", _webhook(console, webhooks, provider))
    attempts = Attempts()
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _served(console, route, attempts))
    add_pages(app, console, figures, PAGES)
    return app


async def start_console(console: Console, host: str, port: int) -> Callable[[], Awaitable[None]]:
    """Serve; returns what closes it. Raises UsageError when the port cannot be had."""
    runner = web.AppRunner(
        application(console),
        access_log=None,
        keepalive_timeout=limits.keepalive_timeout_s,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise UsageError(
            f"console: port {port} on {host} cannot be bound: {error.strerror}; "
            "stop what uses it or change `console.port`"
        ) from None
    return runner.cleanup


def _answering(room: asyncio.Semaphore) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def answering(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn everything a handler may raise into an answer; refuse what there is no room for."""
        if room.locked():
            busy = Declined(503, "busy", "too many requests at once; try again")
            return _answer(503, busy.document(), busy.retry_after_s)
        async with room:
            try:
                return await handler(request)
            except Declined as refusal:
                return _answer(refusal.status, refusal.document(), refusal.retry_after_s)
            except web.HTTPException as error:
                return _answer(error.status, Declined(error.status, "http", error.reason).document())
            except FareboxError as error:
                answer = declined(error)
                _log.warning("%s %s: %d %s", request.method, request.path, answer.status, error)
                return _answer(answer.status, answer.document(), answer.retry_after_s)
            except Exception:  # noqa: BLE001 - the last answer there is; it is in the log
                _log.exception("%s %s failed", request.method, request.path)
                message = "something failed here; it is in the log"
                return _answer(500, Declined(500, "internal", message).document())

    return answering


def _served(
    console: Console, route: Route, attempts: Attempts
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        now_ms = wall_ms()
        text = await _body(request, limits.console_body_bytes_max)
        credential = presented(request)
        caller = await admitted(console.store, route, credential, console.hosts, now_ms)
        call = Call(
            store=console.store,
            settings=console.settings,
            caller=caller,
            path=dict(request.match_info),
            query=dict(request.query),
            body=_input(route.body, text),
            asked=_asked(route.query, request.query),
            route=route,
            key=_idempotency_key(request, route),
            now_ms=now_ms,
            shown=credential,
            attempts=attempts,
            hosts=console.hosts,
            zone=console.zone,
        )
        answer = await route.handler(call)
        if route.body is not None:
            _log.info("%s %s by %s: done", request.method, request.path, caller.actor)
        if isinstance(answer, Reply):
            return _with_session(
                _answer(200, answer.document), answer.session, is_secure=credential.is_secure
            )
        return _answer(200, answer)

    return serve


def _with_session(response: web.Response, token: str, *, is_secure: bool) -> web.Response:
    if not token:
        response.del_cookie(sessions.COOKIE, path="/")
        return response
    response.set_cookie(
        sessions.COOKIE,
        token,
        path="/",
        max_age=int(limits.session_lasts_s),
        secure=is_secure,
        httponly=True,
        samesite="Strict",
    )
    return response


def _openapi() -> Callable[[web.Request], Awaitable[web.Response]]:
    document = openapi.document(ROUTES)

    async def serve(request: web.Request) -> web.Response:
        del request
        return _answer(200, document)

    return serve


def _webhook(
    console: Console, webhooks: Webhooks, name: str
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def deliver(request: web.Request) -> web.Response:
        try:
            body = await _body(request, limits.webhook_body_bytes_max)
        except Declined as refusal:
            webhooks.count(name, refusal.code)
            raise
        headers = {key.lower(): value for key, value in request.headers.items()}
        return _answer(200, await webhooks.deliver(console.store, name, headers, body, wall_ms()))

    return deliver


async def _body(request: web.Request, bytes_max: int) -> bytes:
    if "Content-Encoding" in request.headers:
        raise Declined(415, "encoded", "send the body as it is, without Content-Encoding")
    if (request.content_length or 0) > bytes_max:
        raise Declined(413, "too_large", f"the body may have at most {bytes_max} bytes")
    try:
        async with asyncio.timeout(limits.console_body_timeout_s):
            body = await request.read()
    except TimeoutError:
        raise Declined(408, "slow", "the body did not come in time") from None
    except web.HTTPRequestEntityTooLarge:
        raise Declined(413, "too_large", f"the body may have at most {bytes_max} bytes") from None
    if len(body) > bytes_max:
        raise Declined(413, "too_large", f"the body may have at most {bytes_max} bytes")
    return body


def _input(model: type[BaseModel] | None, body: bytes) -> BaseModel | None:
    if model is None:
        return None
    try:
        return model.model_validate(json.loads(body, parse_float=Decimal, parse_constant=_no_number))
    except ValidationError as error:
        raise _invalid(error, "the body") from None
    except (ValueError, RecursionError):
        raise Declined(400, "invalid", "the body is no JSON object") from None


def _asked(model: type[BaseModel] | None, query: Mapping[str, str]) -> BaseModel | None:
    if model is None:
        return None
    try:
        return model.model_validate(dict(query))
    except ValidationError as error:
        raise _invalid(error, "the query") from None


def _invalid(error: ValidationError, whole: str) -> Declined:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    return Declined(422, "invalid", f"{where}: {first['msg']}")


def _no_number(text: str) -> None:
    raise ValueError(text)


def _idempotency_key(request: web.Request, route: Route) -> str:
    if route.body is None or not route.keyed:
        return ""
    key = request.headers.get("Idempotency-Key", "")
    if not _KEY.fullmatch(key):
        raise Declined(
            400, "idempotency_key", "send an Idempotency-Key of 8 to 100 characters, a new one for a new wish"
        )
    return key


def _metrics(
    registry: CollectorRegistry, figures: Figures
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def metrics(request: web.Request) -> web.Response:
        del request
        await figures.refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})

    return metrics


async def _healthz(request: web.Request) -> web.Response:
    del request
    return web.json_response({"status": "ok"})


def _answer(status: int, document: Mapping[str, object], retry_after_s: int = 0) -> web.Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if retry_after_s:
        headers["Retry-After"] = str(retry_after_s)
    return web.Response(
        body=orjson.dumps(document, default=_plain),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def _plain(value: object) -> object:
    """Exact decimals become JSON numbers as they stand, where a contract has numbers."""
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} in an answer")
