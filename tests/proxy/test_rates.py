"""Promise: a key's requests within any 60 seconds never exceed its limit, and a refusal says when to come
again.
"""

from farebox.proxy import rates
from farebox.proxy.rates import WINDOW_S, RateLimiter


def test_B22_a_refused_request_is_not_counted_and_learns_when_to_come_again() -> None:
    limiter = RateLimiter()
    assert limiter.admit("k", 2, 0.0).remaining == 1
    assert limiter.admit("k", 2, 10.0).remaining == 0
    refused = limiter.admit("k", 2, 20.0)
    assert refused.retry_after_s == 41
    assert limiter.admit("k", 2, WINDOW_S + 1).retry_after_s == 0
    assert limiter.admit("other", 2, 20.0).remaining == 1


def test_B22_a_limit_of_nothing_admits_nothing() -> None:
    assert RateLimiter().admit("k", 0, 0.0).retry_after_s == int(WINDOW_S)


def test_M10_only_so_many_keys_are_remembered() -> None:
    limiter = RateLimiter()
    for number in range(rates._KEYS_MAX + 1):
        limiter.admit(str(number), 1, 0.0)
    assert limiter.admit("0", 1, 0.0).retry_after_s == 0
    assert limiter.admit(str(rates._KEYS_MAX), 1, 0.0).retry_after_s > 0
