"""What `check-config` and the start-up log show of each model: upstream, address, wallet, pools, prices."""

from collections.abc import Mapping
from dataclasses import dataclass

from farebox.config.prices import KIND_BY_KEY
from farebox.config.settings import ModelRow, Service, Settings


@dataclass(frozen=True, slots=True)
class TableRow:
    """One model of one service, ready to print; `urls` is by wire format, `prices` by kind."""

    service: str
    port: int
    model: str
    aliases: tuple[str, ...]
    upstream: str
    upstream_model: str
    urls: Mapping[str, str]
    wallet: str
    pools: tuple[str, ...]
    prices: Mapping[str, str]
    multiplier: str
    tiers: tuple[str, ...]
    variants: tuple[str, ...]
    free: bool

    def line(self) -> str:
        """One line for the start-up log."""
        prices = " ".join(f"{kind}={price}" for kind, price in self.prices.items())
        cost = "free" if self.free else f"{prices} USD/Mtok x{self.multiplier}"
        hosts = ",".join(dict.fromkeys(url.split("/v1/", 1)[0] for url in self.urls.values()))
        return (
            f":{self.port} {self.model} -> {self.upstream} {self.upstream_model} ({hosts};"
            f" {','.join(self.urls)}) wallet={self.wallet} pools={'>'.join(self.pools)} {cost}"
        )


def check_table(settings: Settings) -> list[TableRow]:
    """All models of all services, in the files' order."""
    return [_table_row(service, row) for service in settings.services for row in service.models]


def _table_row(service: Service, row: ModelRow) -> TableRow:
    price = row.price
    token_kinds = set(KIND_BY_KEY.values())
    return TableRow(
        service=service.name,
        port=service.port,
        model=row.id,
        aliases=row.ids[1:],
        upstream=row.upstream,
        upstream_model=row.upstream_model,
        urls={wire_format: endpoint.url(wire_format) for wire_format, endpoint in row.endpoints.items()},
        wallet=row.wallet,
        pools=row.pools,
        prices={kind: text for kind, text in price["lines"].items() if kind in token_kinds or text != "0"},
        multiplier=price["multiplier"],
        tiers=tuple(
            f"{'from' if inclusive else 'above'} {threshold}" for threshold, inclusive, _ in price["tiers"]
        ),
        variants=tuple(price["variants"]),
        free=row.free,
    )
