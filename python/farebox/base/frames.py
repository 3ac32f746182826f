"""Kinds of journal frames (MONEY section 7); the numbers are on disk and never change their meaning."""

from typing import Final

PRICES: Final = 1
OPEN: Final = 2
SENT: Final = 3
PROGRESS: Final = 4
SETTLE: Final = 5
VOID: Final = 6

NAMES: Final = {
    PRICES: "prices",
    OPEN: "open",
    SENT: "sent",
    PROGRESS: "progress",
    SETTLE: "settle",
    VOID: "void",
}
