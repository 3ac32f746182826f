"""Room: the log that makes a settled exchange survive a killed process.

Owns frames, segments, syncing and reading. Promises that records come back in order, once, up to the first
damage, and that damage at or before a position known synced is an error. Takes no decisions: what a record
means is the business of those who write and apply it.
"""

from farebox.journal.journal import Durability, Journal, create, open_journal, take
from farebox.journal.payloads import prices_payload, progress_payload
from farebox.journal.reader import Reader
from farebox.journal.recovery import JournalScan, OpenExchange, scan

__all__ = [
    "Durability",
    "Journal",
    "JournalScan",
    "OpenExchange",
    "Reader",
    "create",
    "open_journal",
    "prices_payload",
    "progress_payload",
    "scan",
    "take",
]
