"""`farebox smoke`: one real request to a running Farebox, and whether the right money paid for it.

What an operator runs after a deployment: the answer's exchange is looked up in the store; its wallet, the
pool that paid, the upstream that served it, its log row and its recomputed charge are shown, and anything
that is not as it should be is a failure.
"""

import asyncio
import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.base.keys import key_digest
from farebox.base.records import WALLETS
from farebox.credits.explained import explained
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, place_of, with_store
from farebox.store.base import Store

_POLL_S = 0.1
_PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; `exchange` is its id."""

    status: int
    exchange: str
    body: bytes


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("smoke")(smoke)


def smoke(
    base_url: Annotated[
        str, typer.Option(help="Where clients reach it, for example https://chat.example.com.")
    ],
    model: Annotated[str, typer.Option(help="A model to ask; it is really asked, and paid for.")],
    key: Annotated[
        str, typer.Option(envvar="FAREBOX_SMOKE_KEY", help="An API key; better from the environment.")
    ] = "",
    wire_format: Annotated[str, typer.Option("--format", help="chat or messages.")] = "chat",
    wallet: Annotated[
        str, typer.Option(help="The wallet that must pay: ohmygpt, openhands, subscription.")
    ] = "",
    ca_file: Annotated[str, typer.Option(help="Certificate authorities to trust besides the system's.")] = "",
    connect_to: Annotated[
        str, typer.Option(help="HOST:PORT to connect to instead of the URL's, before DNS points there.")
    ] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a request to a running Farebox and confirm wallet, pool, upstream, charge and log row."""
    if wire_format not in _PATHS:
        raise UsageError("--format is chat or messages")
    if wallet and wallet not in WALLETS:
        raise UsageError(f"--wallet is one of {', '.join(WALLETS)}")
    if not key:
        raise UsageError("name an API key: FAREBOX_SMOKE_KEY, or --key")
    place = place_of(config, store)
    reply = _sent(base_url, connect_to, ca_file, wire_format, model, key)
    if reply.status != 200:
        said = reply.body.decode("utf-8", "replace")[:500]
        raise UsageError(f"{base_url} answered {reply.status} to {_PATHS[wire_format]}: {said}")
    found = with_store(place, lambda s: _booked(s, key, reply.exchange))
    document = _judged(found, wallet)
    document["base_url"] = base_url
    rows = [(name, value) for name, value in document.items() if name != "problems"]
    verdict = "; ".join(document["problems"]) or "all as it should be"
    answer(document, as_json, table("", ("checked", "found"), rows), verdict)
    if document["problems"]:
        raise typer.Exit(1)


def _sent(base_url: str, connect_to: str, ca_file: str, wire_format: str, model: str, key: str) -> Reply:
    """One small request over the network, as a client sends it."""
    url = urlsplit(base_url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise UsageError("--base-url is http://HOST or https://HOST")
    path = url.path.rstrip("/").removesuffix("/v1") + _PATHS[wire_format]
    body = {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]}
    headers = {
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "host": url.netloc,
        "user-agent": "farebox-smoke",
    }
    connection = _connection(url.scheme, url.hostname, url.port, connect_to, ca_file)
    try:
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        return Reply(response.status, response.headers.get("x-request-id", ""), response.read())
    except (OSError, http.client.HTTPException) as error:
        raise UsageError(f"{base_url} cannot be reached: {error}") from None
    finally:
        connection.close()


def _connection(
    scheme: str, host: str, port: int | None, connect_to: str, ca_file: str
) -> http.client.HTTPConnection:
    other_host, _, other_port = connect_to.rpartition(":")
    if connect_to and not (other_host and other_port.isdecimal()):
        raise UsageError("--connect-to is HOST:PORT")
    if scheme == "http":
        return http.client.HTTPConnection(
            other_host or host, int(other_port or port or 80), timeout=limits.smoke_answer_s
        )
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return _NamedTLS(host, port or 443, (other_host, int(other_port)) if connect_to else None, context)


class _NamedTLS(http.client.HTTPSConnection):
    """TLS to a host by its name, at another address where one is given."""

    def __init__(self, host: str, port: int, other: tuple[str, int] | None, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=limits.smoke_answer_s, context=context)
        self._other = other
        self._tls = context

    def connect(self) -> None:
        """Connect to the address given, and verify the certificate of the name asked for."""
        raw = socket.create_connection(self._other or (self.host, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self.host)


async def _booked(store: Store, key: str, exchange: str) -> dict[str, Any]:
    """Everything of the exchange, once the writer has booked it. Raises UsageError when it does not come."""
    record = await store.key(key_digest(key))
    if record is None:
        raise UsageError("this store does not know that key: is it the store of the Farebox that answered?")
    deadline_s = time.monotonic() + limits.smoke_booking_s
    while time.monotonic() < deadline_s:
        try:
            found = await explained(store, exchange, record.user)
        except UsageError:
            found = {}
        if found and found["log"]:
            return found
        await asyncio.sleep(_POLL_S)
    waited = f"{limits.smoke_booking_s:.0f} s"
    raise UsageError(f"exchange {exchange} of {record.user} was not booked in {waited}: is the writer up?")


def _judged(found: dict[str, Any], wallet: str) -> dict[str, Any]:
    """What was found, and what is wrong with it."""
    log = found["log"]
    pools = {row["pool"] for row in found["transactions"] if row["type"] == "spent"}
    paid_by = str(log["creditType"])
    problems = []
    if wallet and paid_by != wallet:
        problems.append(f"wallet {paid_by} paid instead of {wallet}")
    if not pools <= set(WALLETS.get(paid_by, ())):
        problems.append(f"pools {', '.join(sorted(pools))} are not all of wallet {paid_by}")
    if found["recomputed"] != found["amount"]:
        problems.append(f"the charge recomputes as {found['recomputed'] or 'nothing'}")
    return {
        "exchange": found["exchange"],
        "user": found["user"],
        "wallet": paid_by,
        "pools": ", ".join(sorted(pools)),
        "model": found["model"],
        "upstream": log["upstream"],
        "upstream_model": log.get("upstreamModel", ""),
        "evidence": found["evidence"],
        "charged": found["amount"],
        "recomputed": found["recomputed"],
        "problems": problems,
    }
