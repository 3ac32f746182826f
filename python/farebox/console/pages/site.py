"""Serving the pages: one table of them, who may see each, and the headers that keep a page to itself.

Promises: scripts, styles and requests of a page go to this host only, and no other site can frame it (the
policy below); nothing is cached; whoever is not logged in is sent to do so; an error is a page with one clear
sentence and the right status.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from farebox.base.clock import wall_ms
from farebox.base.errors import FareboxError
from farebox.config.credits import CreditsSettings
from farebox.console import sessions
from farebox.console.access import check_place, identified, presented
from farebox.console.answers import Declined, declined
from farebox.console.figures import Figures
from farebox.console.pages import words
from farebox.console.periods import DEFAULT, PERIODS, Period, period_of
from farebox.console.routes import ANYONE, USER, Caller
from farebox.store.base import Store

if TYPE_CHECKING:
    from farebox.console.server import Console

_log = logging.getLogger(__name__)
_HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types farebox"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
    "Cache-Control": "no-store",
}


Live = Callable[[], Awaitable[Sequence[Mapping[str, object]]]]


async def nobody() -> Sequence[Mapping[str, object]]:
    """No worker is there to be asked."""
    return ()


@dataclass(frozen=True, slots=True)
class Visit:
    """One look at a page by somebody who may."""

    store: Store
    settings: CreditsSettings
    figures: Figures
    writer_status: Path
    live: Live
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    now_ms: int
    zone: tzinfo

    @property
    def period(self) -> Period:
        """What the page's period filter says. Raises UsageError."""
        return period_of(self.query, self.now_ms, self.zone)


@dataclass(frozen=True, slots=True)
class Page:
    """One row of the table. `show` gives what the template needs."""

    path: str
    roles: frozenset[str]
    template: str
    show: Callable[[Visit], Awaitable[Mapping[str, object]]]


@dataclass(frozen=True, slots=True)
class _Site:
    console: "Console"
    figures: Figures
    templates: Environment


def add_pages(app: web.Application, console: "Console", figures: Figures, pages: Sequence[Page]) -> None:
    """Serve the pages, their scripts and styles, and the way in."""
    site = _Site(console, figures, _environment())
    app.router.add_get("/", _begin(site))
    app.router.add_get("/login", _login(site))
    for path in sorted((_HERE / "static").iterdir()):
        app.router.add_get(f"/static/{path.name}", _static(path))
    for page in pages:
        app.router.add_get(page.path, _served(site, page))


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(usd=words.usd, usd_exact=words.usd_exact, short=words.short, span=words.span)
    made.filters.update(moment=words.moment)
    return made


def _static(path: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "ETag": tag}

    async def serve(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=_TYPES[path.suffix], charset="utf-8", headers=headers)

    return serve


def _begin(site: _Site) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def begin(request: web.Request) -> web.Response:
        try:
            caller = await _caller(site, request)
        except (Declined, FareboxError) as error:
            return _failed(site, error, None, "")
        if caller is None:
            return _sent_to("/login")
        return _sent_to("/me" if caller.role == USER else "/overview")

    return begin


def _login(site: _Site) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def login(request: web.Request) -> web.Response:
        try:
            check_place(presented(request), site.console.hosts)
        except Declined as error:
            return _failed(site, error, None, "")
        return _page(site, 200, "login.html", {}, None, "")

    return login


def _served(site: _Site, page: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        caller: Caller | None = None
        csrf = ""
        try:
            caller = await _caller(site, request)
            if caller is None:
                return _sent_to("/login")
            csrf = sessions.csrf_of(request.cookies.get(sessions.COOKIE, ""))
            if caller.role not in page.roles:
                raise Declined(403, "forbidden", f"this page is not for the role {caller.role}")
            visit = Visit(
                store=site.console.store,
                settings=site.console.settings,
                figures=site.figures,
                writer_status=site.console.writer_status,
                live=site.console.live,
                caller=caller,
                path=dict(request.match_info),
                query=dict(request.query),
                now_ms=wall_ms(),
                zone=site.console.zone,
            )
            context = {"visit": visit, "query": visit.query, **await page.show(visit)}
            return _page(site, 200, page.template, context, caller, csrf)
        except (Declined, FareboxError) as error:
            return _failed(site, error, caller, csrf)
        except Exception:  # noqa: BLE001 - the last answer there is; it is in the log
            _log.exception("%s %s failed", request.method, request.path)
            broken = Declined(500, "internal", "Something failed here; it is in the log.")
            return _failed(site, broken, caller, csrf)

    return serve


async def _caller(site: _Site, request: web.Request) -> Caller | None:
    """Who looks; pages are for sessions, so a bare token finds the login."""
    shown = presented(request)
    if shown.authorization:
        return None
    return await identified(site.console.store, shown, site.console.hosts, wall_ms())


def _sent_to(path: str) -> web.Response:
    return web.Response(status=303, headers={**HEADERS, "Location": path})


def _failed(site: _Site, error: Exception, caller: Caller | None, csrf: str) -> web.Response:
    answer = error if isinstance(error, Declined) else None
    if answer is None and isinstance(error, FareboxError):
        answer = declined(error)
    if answer is None:
        raise error
    context = {"status": answer.status, "message": answer.message}
    return _page(site, answer.status, "error.html", context, caller, csrf)


def _page(
    site: _Site,
    status: int,
    template: str,
    context: Mapping[str, object],
    caller: Caller | None,
    csrf: str,
) -> web.Response:
    text = site.templates.get_template(template).render(
        caller=caller,
        csrf=csrf,
        is_user=caller is not None and caller.role == USER,
        role=ANYONE if caller is None else caller.role,
        periods=PERIODS,
        default_period=DEFAULT,
        zone=site.console.zone,
        **context,
    )
    return web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)
