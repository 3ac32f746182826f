"""What would mend a difference that verify found. It only says so; doing it is an operator's decision.

Promises: each kind of difference has its remedy, with the names and amounts of the case: first what to look
at, then what to change. Nothing here touches a store.
"""

from typing import Final

from farebox.ledger.conservation import Finding

_REMEDIES: Final = {
    "rows": (
        "find out which side is right: `farebox transactions show {user}` against payments and request "
        "logs. If the balance is right, a ledger row of {user} in {pool} over {delta:+d} pico is missing;"
        " if the rows are right, balance and shadow of {pool} must be {other} pico, and its lots must add"
        " up to that"
    ),
    "lots": (
        "the lots of {user} in {pool} must add up to {balance} pico: change the lot that was written to "
        "by {delta:+d} pico (the latest rows name lots and amounts)"
    ),
    "shadow": (
        "somebody outside Farebox wrote {delta:+d} pico to {pool} of {user}. Keep it: `farebox wallet "
        "adopt {user}` books an adjustment. Undo it: set the balance back to {other} pico. Then find the "
        "writer"
    ),
    "leased": (
        "`leased` of lot {lot} of {user} must be {held} pico, the sum of its leases and reserved amounts,"
        " not {leased}. Too high only keeps money idle; too low lets it be granted twice: stop workers "
        "first"
    ),
    "no lot": (
        "{user} has a lease or reserved amount of lot {lot}, which does not exist: restore the lot from a"
        " backup, or end the lease with `farebox lease release --lost JOURNAL`"
    ),
    "below zero": (
        "no command of Farebox can cause this: keep a copy of the store, look for whoever wrote to "
        "{user}, restore from a backup; journals still on disk are applied to it again without booking "
        "anything twice"
    ),
    "ended lease": (
        "`farebox lease release --lost {journal}` gives back what the ended journal {journal} leased of "
        "{user}"
    ),
    "reserved": (
        "nothing waits for an operator under {exchange} any more, but {amount} pico of {user} are "
        "reserved for it: remove reserved.{exchange} and lower `leased` of its lots by the same amounts"
    ),
    "no rows": (
        "book it again: stop the writer, set journals.{journal}.applied to {before}, start it; what is "
        "booked is recognised and stays as it is. The row would charge {user} {amount} pico"
    ),
    "short journal": (
        "put back the newest copy of directory {journal}. Without one, what it recorded up to {applied} "
        "is only in the store: end the journal with `farebox lease release --lost {journal}`"
    ),
    "damaged": (
        "keep a copy of journal {journal}, look for the disk's errors, restore the file from a copy; "
        "settlements behind the damage are not booked. Without a copy: `farebox lease release --lost "
        "{journal}`"
    ),
    "payment without row": (
        "{payment} says that it was credited to {user}, the ledger has no row {row}: restore the row from a "
        "backup, or correct the balance with `farebox wallet adjust {user}` and say why"
    ),
    "payment differs": (
        "row {row} and payment {payment} were booked in one transaction with one amount: see which of the "
        "two a backup has otherwise, and put it back"
    ),
    "row without payment": (
        "nobody paid for row {row}: look for {payment} at the provider. If it is not there either, take the "
        "credit back with `farebox wallet adjust {user}`"
    ),
    "rollups": (
        "no user's money: statistics of {series} differ from the others. Find out who wrote to the rollups; "
        "the request log has the exchanges of the last weeks, a backup the sums before them"
    ),
    "gone": "accounts are never deleted: restore {user} from a backup of the store",
}


def remedy(finding: Finding) -> str:
    """What would mend a difference, for people."""
    return _REMEDIES[finding.kind].format(**{"delta": _delta(finding), **finding.values})


def _delta(finding: Finding) -> int:
    """By how much the balance is above what it is compared with."""
    balance, other = finding.values.get("balance", 0), finding.values.get("other", 0)
    return balance - other if isinstance(balance, int) and isinstance(other, int) else 0
