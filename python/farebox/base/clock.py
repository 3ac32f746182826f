"""Time, read in one place. Decisions take time as an argument; only the edges call these.

Durations use the monotonic clocks; wall time appears in stored dates and lot expiry only.
"""

import time


def wall_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Seconds on a clock that never jumps; stops while the machine is suspended."""
    return time.monotonic()


def boot_s() -> float:
    """Seconds since boot, suspension included: a process that slept must notice (MONEY section 6)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
