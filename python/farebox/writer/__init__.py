"""Room: from journal to store, exactly once.

Owns applying settled records, recovery, rollups, verify and audit. Promises that any replay changes nothing
and that one user's trouble never holds up another's. Never prices: amounts are in the records.
"""
