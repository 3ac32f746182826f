"""Promise: requests go to places by weight and health; what may have been worked on is never sent again."""

from collections import Counter

import pytest

from farebox.base import limits
from farebox.proxy.health import BREAK_AFTER_FAILURES, Place, choose, may_go_elsewhere


def places(*weights: int) -> list[Place[str]]:
    return [Place(name, weight) for name, weight in zip("abc", weights, strict=False)]


def chosen(among: list[Place[str]], now_s: float, times: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(times):
        place = choose(among, now_s)
        assert place is not None
        found[place.target] += 1
    return found


def test_weights_are_kept_to_exactly_in_every_round() -> None:
    among = places(5, 2, 1)
    for _ in range(3):
        assert chosen(among, 0.0, 8) == {"a": 5, "b": 2, "c": 1}


def test_a_resting_place_gets_nothing_and_comes_back() -> None:
    among = places(1, 1)
    among[0].answered(429, 7, 100.0)
    assert chosen(among, 106.9, 10) == {"b": 10}
    assert chosen(among, 107.0, 10)["a"] == 5


def test_where_all_rest_the_one_that_wakes_first_is_tried_and_only_once() -> None:
    among = places(1, 1)
    among[0].answered(503, 30, 0.0)
    among[1].answered(503, 20, 0.0)
    first = choose(among, 1.0)
    assert first is among[1]
    assert choose(among, 1.0, tried=[first]) is None


def test_a_second_attempt_goes_to_another_place_that_is_awake() -> None:
    among = places(1, 1, 1)
    among[1].unreachable(0.0)
    assert choose(among, 0.1, tried=[among[0]]) is among[2]
    assert choose(among, 0.1, tried=[among[0], among[2]]) is None


@pytest.mark.parametrize("status", [429, 503, 529])
def test_rests_grow_while_it_stays_busy_and_end_at_the_limit(status: int) -> None:
    place = places(1)[0]
    now_s, rests = 0.0, []
    for _ in range(14):
        place.answered(status, None, now_s)
        rests.append(place.rests_until_s - now_s)
        now_s = place.rests_until_s
    assert rests[:4] == [0.5, 1.0, 2.0, 4.0]
    assert rests[-1] == limits.upstream_rest_max_s
    place.answered(200, None, now_s)
    place.answered(status, None, now_s)
    assert place.rests_until_s == now_s + 0.5


def test_retry_after_is_honoured_up_to_the_limit_and_never_shortened() -> None:
    place = places(1)[0]
    place.answered(429, 20, 0.0)
    assert place.rests_until_s == 20.0
    place.answered(429, 1, 1.0)
    assert place.rests_until_s == 20.0
    place.answered(429, 86_400, 2.0)
    assert place.rests_until_s == 2.0 + limits.upstream_rest_max_s


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_credential_rests_a_minute(status: int) -> None:
    place = places(1)[0]
    place.answered(status, None, 10.0)
    assert place.rests_until_s == 70.0


def test_the_circuit_breaks_after_so_many_server_errors_running() -> None:
    place = places(1)[0]
    for _ in range(BREAK_AFTER_FAILURES - 1):
        place.answered(500, None, 0.0)
    assert place.rests_until_s == 0.0
    place.answered(200, None, 0.0)
    for _ in range(BREAK_AFTER_FAILURES):
        assert place.rests_until_s == 0.0
        place.answered(502, None, 0.0)
    assert place.rests_until_s == 0.5


@pytest.mark.parametrize(
    ("status", "elsewhere"),
    [
        *((status, False) for status in (200, 400, 404, 408, 413, 500, 502, 504)),
        *((status, True) for status in (401, 402, 403, 429, 503, 529)),
    ],
)
def test_only_what_was_surely_not_worked_on_goes_elsewhere(status: int, elsewhere: bool) -> None:
    assert may_go_elsewhere(status) is elsewhere
