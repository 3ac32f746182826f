"""Room: where balances live.

Owns the Store protocol and its implementations. Promises that a ledger row and its effect on the balance are
one transaction and that a row's id is unique. Does not price, hold or decide: callers pass finished amounts
and conditions.
"""
