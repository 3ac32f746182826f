"""What a worker serves: services, their price books and upstream connections, put in force as a whole.

At start and at each reload the same happens: credentials are read, price books get their version from the
store, connections to endpoints that did not change are kept, and in one turn of the event loop every service
answers by the new settings. Exchanges that run finish on what they began with.
"""

import asyncio
from typing import Any

from farebox.base import clock, limits
from farebox.base.redaction import Secret
from farebox.config.secrets import credentials
from farebox.config.settings import Endpoint as EndpointSettings
from farebox.config.settings import Service, Settings
from farebox.meter import PriceBook, plain_models
from farebox.proxy.service import ServiceHandler, compile_book
from farebox.proxy.worker import Worker
from farebox.store.base import WorkerStore
from farebox.wire.server import Server
from farebox.wire.upstream import Endpoint, Pool, verifying_tls

PoolName = tuple[str, str]
"""Service and endpoint."""


class Serving:
    """The settings in force in one worker."""

    def __init__(self, worker: Worker, servers: list[Server], store: WorkerStore) -> None:
        self._worker = worker
        self._servers = servers
        self._store = store
        self._pools: dict[PoolName, tuple[object, Pool]] = {}
        self._turn = asyncio.Lock()

    async def put_in_force(self, settings: Settings) -> None:
        """Serve by `settings` from now on, or raise (ConfigError, errors of the store) and change nothing."""
        async with self._turn:
            secrets = credentials(settings)
            books = [await self._book(service) for service in settings.services]
            pools = self._pools_for(settings, secrets)
            self._worker.use_pools({name: pool for name, (_, pool) in pools.items()})
            handlers = [
                ServiceHandler(self._worker, service, book)
                for service, book in zip(settings.services, books, strict=True)
            ]
            for server, handler in zip(self._servers, handlers, strict=True):
                server.handle = handler
            replaced = [
                pool
                for name, (_, pool) in self._pools.items()
                if pools.get(name, (None, None))[1] is not pool
            ]
            self._pools = pools
            for pool in replaced:  # who was admitted a moment ago may still be connecting
                self._worker.loop.call_later(limits.upstream_connect_timeout_s, pool.close)

    def _pools_for(
        self, settings: Settings, secrets: dict[PoolName, Secret]
    ) -> dict[PoolName, tuple[object, Pool]]:
        pools = {}
        for service in settings.services:
            for endpoint in service.endpoints.values():
                name = (service.name, endpoint.name)
                credential = secrets.get(name)
                same_if = (endpoint, service.user_agent, credential and credential.reveal())
                kept = self._pools.get(name)
                if kept is not None and kept[0] == same_if:
                    pools[name] = kept
                else:
                    pool = Pool(_endpoint(service, endpoint, credential), self._worker.loop)
                    pools[name] = (same_if, pool)
        return pools

    async def _book(self, service: Service) -> PriceBook:
        """The service's price book under the version number the store gives its content."""
        now_ms = clock.wall_ms()
        draft = compile_book(service, 0, now_ms)
        models: dict[str, Any] = {"models": plain_models(draft.models)}
        version = await self._store.put_price_book(models, draft.content_hash, now_ms)
        return compile_book(service, version, now_ms)


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
        tls=verifying_tls(str(endpoint.ca_file) if endpoint.ca_file else None) if endpoint.tls else None,
    )
