"""Flags that the writer's room puts on settlements or looks for: the names other rooms and readers see."""

from typing import Final

UNSURE: Final = "unsure"
"""Estimated after a crash with no progress seen: the upstream may have done nothing, or much."""
CAPPED: Final = "capped_at_hold"
"""An estimate that was cut at the exchange's hold: the charge is less than its counts cost."""
RESOLVED: Final = "resolved"
"""An operator decided the amount."""
