"""What a client is told and in whose shape: what is said in several places; and of an upstream that failed
our own words, or the upstream's where they are the client's business.
"""

from typing import TYPE_CHECKING

from farebox.base.errors import Refusal, Refused, UpstreamError, UpstreamTimeoutError
from farebox.wire.errors import Answer, render, upstream_fault
from farebox.wire.headers import header_value
from farebox.wire.routes import family_of

if TYPE_CHECKING:
    from farebox.meter import Head
    from farebox.wire.incoming import Incoming
    from farebox.wire.routes import Family

KEY_NOT_VALID = "This API key is not valid."
UNREACHABLE = "The upstream provider cannot be reached."
BROKEN_OFF = "The upstream provider broke off its answer."
NOT_RECORDED = "Farebox cannot record new requests right now."
SHUTTING_DOWN = "This server is shutting down."


def broken_answer(fault: UpstreamError | None, family: "Family", exchange: str, *, oversize: bool) -> Answer:
    """For an answer that broke off, came too late, or was too large to be metered."""
    if isinstance(fault, UpstreamTimeoutError):
        refused = Refused(Refusal.UPSTREAM_TIMEOUT, "The upstream provider did not answer in time.")
    elif oversize:
        refused = Refused(
            Refusal.UPSTREAM_FAILED, "The upstream provider's answer is too large to be metered."
        )
    else:
        refused = Refused(Refusal.UPSTREAM_FAILED, BROKEN_OFF)
    return render(refused, family, exchange)


def failed_answer(head: "Head | None", status: int, family: "Family", exchange: str) -> Answer | None:
    """For an error of the upstream that is not the client's business; None: he gets it as it is."""
    retry_after = header_value(head, b"retry-after") if head is not None else b""
    return upstream_fault(status, family, exchange, retry_after)


def asked_family(client: "Incoming") -> "Family":
    """In whose shapes to answer; on the list of models, which both serve, by a header only one sends."""
    if client.path.startswith("/v1/models") and "anthropic-version" in client.headers:
        return "anthropic"
    return family_of(client.path)
