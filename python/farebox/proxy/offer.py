"""What a service sells: each model on each metered route by each of its names, its prices compiled."""

from collections.abc import Mapping, Sequence

from farebox.base import limits
from farebox.config.settings import ModelRow, Service
from farebox.meter import ModelPrice, PriceBook, SettlementWording, new_price_book
from farebox.meter.estimate import INPUT_BOUNDS
from farebox.proxy.health import Place
from farebox.proxy.plain import plain_terms
from farebox.wire.upstream import Pool

_INJECTED_FORMATS = frozenset(("chat", "completions"))


class Offer:
    """One model on one route, by one of its names: everything of it that an exchange needs."""

    __slots__ = (
        "injects_usage",
        "model",
        "model_id",
        "places",
        "pool",
        "price",
        "price_version",
        "sent_name",
        "terms",
        "upstream",
        "wallet",
        "wording",
    )

    def __init__(
        self,
        name: str,
        wire_format: str,
        model: ModelRow,
        price: ModelPrice,
        price_version: int,
        places: Sequence[Place[Pool]],
    ) -> None:
        self.model = model
        self.model_id = model.id
        self.upstream = model.upstream
        self.wallet = model.wallet
        self.price = price
        self.price_version = price_version
        self.pool = places[0].target
        self.places = places if len(places) > 1 else ()
        """Where requests go if there is more than one place; else empty."""
        self.terms = plain_terms(model, wire_format, price)
        self.wording = SettlementWording(
            model.wallet,
            model.id,
            wire_format,
            price_version,
            price.multiplier,
            model.upstream,
            price.free,
            limits.model_name_bytes_max,
        )
        self.sent_name = None if model.upstream_model == name else model.upstream_model
        """The name to put in the body; None when the client's is right."""
        self.injects_usage = (
            wire_format in _INJECTED_FORMATS and model.endpoints[wire_format].inject_include_usage
        )


def compile_book(service: Service, version: int, effective_ms: int) -> PriceBook:
    """The service's configured prices as a price book."""
    return new_price_book(dict(service.price_book()), version, effective_ms)


def offers_of(
    service: Service, book: PriceBook, places: Mapping[str, Sequence[Place[Pool]]]
) -> dict[tuple[str, str], Offer]:
    """A service's offers by model name and wire format; `places` by endpoint name."""
    return {
        (name, wire_format): Offer(
            name, wire_format, model, book.models[model.id], book.version, places[endpoint.name]
        )
        for model in service.models
        for wire_format, endpoint in model.endpoints.items()
        if wire_format in INPUT_BOUNDS
        for name in model.ids
    }
