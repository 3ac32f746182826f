"""Room: pure money. Pools, lots, leases, holds and settlement as values and functions.

Promises that no hold exceeds its lease and that each hold ends once. No I/O, no clock, no async: time and ids
are arguments, so every decision can be replayed in a test. Does not know stores, journals or prices.
"""
