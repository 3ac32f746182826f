"""Own events of the load tests, and the rows they become in locust's page, CSV and report.

`first_token` and `chunk_gap` fire with `name` and `elapsed_ms`; `money_refused` (a 402) also with `code` and
`is_expected`. Add listeners to send them elsewhere. Their rows stand beside the requests, as types TTFT, GAP
and 402, and are no part of the aggregated line: a gap is no request.
"""

from locust.env import Environment
from locust.event import EventHook
from thresholds import CHUNK_GAP, FIRST_TOKEN, MONEY_REFUSED

from locust import events

first_token = EventHook()
chunk_gap = EventHook()
money_refused = EventHook()


@events.init.add_listener
def show_as_rows(environment: Environment, **_: object) -> None:
    """Log each own event as a row. Workers send their rows to the master as they do with all others."""
    stats = environment.stats

    def on_first_token(name: str, elapsed_ms: float) -> None:
        stats.get(name, FIRST_TOKEN).log(elapsed_ms, 0)

    def on_chunk_gap(name: str, elapsed_ms: float) -> None:
        stats.get(name, CHUNK_GAP).log(elapsed_ms, 0)

    def on_money_refused(name: str, elapsed_ms: float, code: str, is_expected: bool) -> None:
        expected = "expected" if is_expected else "not expected"
        stats.get(f"{name}: {code}, {expected}", MONEY_REFUSED).log(elapsed_ms, 0)

    first_token.add_listener(on_first_token)
    chunk_gap.add_listener(on_chunk_gap)
    money_refused.add_listener(on_money_refused)
