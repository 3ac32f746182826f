"""What a worker serves: services, their price books and upstream connections, put in force as a whole.

At start and at each reload the same happens: credentials are read, price books get their version from the
store, connections to endpoints that did not change are kept, and in one turn of the event loop every service
answers by the new settings. Exchanges that run finish on what they began with.
"""

import asyncio
from dataclasses import replace
from typing import Any

from farebox.base import clock, limits
from farebox.base.redaction import Secret
from farebox.config.secrets import credentials
from farebox.config.settings import Endpoint as EndpointSettings
from farebox.config.settings import Service, Settings
from farebox.meter import PriceBook, plain_models
from farebox.proxy.health import Place
from farebox.proxy.offer import compile_book
from farebox.proxy.service import ServiceHandler
from farebox.proxy.worker import Worker
from farebox.store.base import WorkerStore
from farebox.wire.server import Server
from farebox.wire.upstream import Endpoint, Pool, verifying_tls

PlaceName = tuple[str, str]
"""Service, and endpoint or alternative."""

Kept = tuple[object, Place[Pool]]
"""What must be the same for a place to be kept, and the place."""


class Serving:
    """The settings in force in one worker."""

    def __init__(self, worker: Worker, servers: list[Server], store: WorkerStore) -> None:
        self._worker = worker
        self._servers = servers
        self._store = store
        self._places: dict[PlaceName, Kept] = {}
        self._turn = asyncio.Lock()

    async def put_in_force(self, settings: Settings) -> None:
        """Serve by `settings` from now on, or raise (ConfigError, errors of the store) and change nothing."""
        async with self._turn:
            secrets = credentials(settings)
            books = [await self._book(service) for service in settings.services]
            places = self._places_for(settings, secrets)
            handlers = [
                ServiceHandler(self._worker, service, book, _by_endpoint(service, places))
                for service, book in zip(settings.services, books, strict=True)
            ]
            for server, handler in zip(self._servers, handlers, strict=True):
                server.handle = handler
            self._let_go(places)
            self._places = places

    def open_connections(self) -> int:
        """Upstream connections open or being opened."""
        return sum(place.target.open_count for _, place in self._places.values())

    def _places_for(self, settings: Settings, secrets: dict[PlaceName, Secret]) -> dict[PlaceName, Kept]:
        """A place for every endpoint and alternative; those that are as they were keep their connections."""
        places: dict[PlaceName, Kept] = {}
        for service in settings.services:
            for endpoint in (place for each in service.endpoints.values() for place in each.places()):
                name = (service.name, endpoint.name)
                credential = secrets.get(name)
                same_if = (
                    replace(endpoint, alternatives=()),
                    service.user_agent,
                    credential and credential.reveal(),
                )
                kept = self._places.get(name)
                if kept is None or kept[0] != same_if:
                    pool = Pool(_endpoint(service, endpoint, credential), self._worker.loop)
                    kept = (same_if, Place(pool, endpoint.weight))
                places[name] = kept
        return places

    def _let_go(self, places: dict[PlaceName, Kept]) -> None:
        """Close what is not served from any more; who was admitted a moment ago may still be connecting."""
        kept = {id(place) for _, place in places.values()}
        for _, place in self._places.values():
            if id(place) not in kept:
                self._worker.loop.call_later(limits.upstream_connect_timeout_s, place.target.close)

    async def _book(self, service: Service) -> PriceBook:
        """The service's price book under the version number the store gives its content."""
        now_ms = clock.wall_ms()
        draft = compile_book(service, 0, now_ms)
        models: dict[str, Any] = {"models": plain_models(draft.models)}
        version = await self._store.put_price_book(models, draft.content_hash, now_ms)
        return compile_book(service, version, now_ms)


def _by_endpoint(service: Service, places: dict[PlaceName, Kept]) -> dict[str, tuple[Place[Pool], ...]]:
    return {
        name: tuple(places[service.name, place.name][1] for place in endpoint.places())
        for name, endpoint in service.endpoints.items()
    }


def _endpoint(service: Service, endpoint: EndpointSettings, credential: Secret | None) -> Endpoint:
    return Endpoint(
        name=endpoint.name,
        scheme="https" if endpoint.tls else "http",
        host=endpoint.host,
        port=endpoint.port,
        path_prefix=endpoint.prefix,
        credential=credential,
        credential_style="x-api-key" if endpoint.auth == "x-api-key" else "bearer",
        user_agent=service.user_agent,
        connect_timeout_s=endpoint.connect_timeout_s,
        first_byte_timeout_s=endpoint.first_byte_timeout_s,
        idle_stream_timeout_s=endpoint.idle_timeout_s,
        total_timeout_s=endpoint.total_timeout_s,
        connections_max=endpoint.connections_max,
        tls=verifying_tls(str(endpoint.ca_file) if endpoint.ca_file else None) if endpoint.tls else None,
    )
