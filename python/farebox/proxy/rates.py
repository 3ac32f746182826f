"""Requests per minute and key, in a sliding window of 60 seconds. Exact within one worker; no clock."""

from collections import OrderedDict, deque

WINDOW_S = 60.0
_KEYS_MAX = 100_000


class RateState:
    """What the rate-limit headers say after a request; `retry_after_s` is 0 when it was let in."""

    __slots__ = ("limit", "remaining", "reset_s", "retry_after_s")

    def __init__(self, limit: int, remaining: int, reset_s: int, retry_after_s: int) -> None:
        self.limit = limit
        self.remaining = remaining
        self.reset_s = reset_s
        self.retry_after_s = retry_after_s


class RateLimiter:
    """Remembers when each key's recent requests came; the least recently used keys are forgotten first."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: OrderedDict[str, deque[float]] = OrderedDict()

    def admit(self, key: str, limit: int, now_s: float) -> RateState:
        """Count a request of `key` and say whether it is within `limit` a minute; a refused one is not
        counted.
        """
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = deque()
            if len(self._windows) > _KEYS_MAX:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        oldest_s = now_s - WINDOW_S
        while window and window[0] <= oldest_s:
            window.popleft()
        if len(window) >= limit:
            wait_s = max(1, int(window[0] + WINDOW_S - now_s) + 1) if window else int(WINDOW_S)
            return RateState(limit, 0, wait_s, wait_s)
        window.append(now_s)
        return RateState(limit, limit - len(window), int(window[0] + WINDOW_S - now_s) + 1, 0)
