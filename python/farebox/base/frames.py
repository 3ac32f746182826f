"""Kinds of journal frames (MONEY section 7); the numbers are on disk and never change their meaning."""

from typing import Final

PRICES: Final = 1
OPEN: Final = 2
SENT: Final = 3
PROGRESS: Final = 4
SETTLE: Final = 5
VOID: Final = 6
OPEN_SENT: Final = 7
"""Open and sent in one frame: as a worker writes them, which lets the request leave once both are written."""

NAMES: Final = {
    PRICES: "prices",
    OPEN: "open",
    SENT: "sent",
    PROGRESS: "progress",
    SETTLE: "settle",
    VOID: "void",
    OPEN_SENT: "open and sent",
}
BEGINNINGS: Final = frozenset({OPEN, OPEN_SENT})
ENDS: Final = frozenset({SETTLE, VOID})
