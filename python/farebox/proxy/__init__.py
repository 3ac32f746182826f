"""Room: one exchange from admission to settlement.

Owns accounts, admission, rates, leases, the exchange itself, settling and abandoned streams. Promises that
every exchange that reached an upstream ends in exactly one settlement. Leaves bytes to wire, money rules to
ledger, durability to journal and booking to writer.
"""
