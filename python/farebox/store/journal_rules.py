"""What every store decides alike about journals (MONEY section 1): how one ends, why an epoch is refused."""

from typing import Final

from farebox.base.errors import InvariantBrokenError
from farebox.store.base import JournalState

ENDED: Final = ("retired", "lost")


def check_end(ended: str) -> None:
    """Raises InvariantBrokenError for a state in which no journal ends."""
    if ended not in ENDED:
        raise InvariantBrokenError(f"a journal ends as retired or lost, not as {ended!r}")


def is_as_seen(now: JournalState, seen: JournalState) -> bool:
    """Whether a journal has given no sign of life since it was seen."""
    return (now.state, now.epoch, now.beat_ms) == ("live", seen.epoch, seen.beat_ms)


def wrong_epoch(journal: str, epoch: int, stored: int) -> str:
    """Why a journal directory may not go on: it is a copy, or the store is not its own."""
    if stored >= epoch:
        return (
            f"journal {journal}: the store has seen epoch {stored}, this directory wants {epoch}: it is an "
            "old copy or a clone of a journal that went on elsewhere; remove it, or bring back the newer"
        )
    return (
        f"journal {journal}: this directory wants epoch {epoch}, the store has seen {stored}: the store was "
        "restored from a backup or is another one; restore the one of this journal, or end the journal with "
        f"`farebox lease release --lost {journal}`"
    )
