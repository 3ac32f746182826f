"""Room 0: words every other room may use.

Owns units, ids, keys, the error vocabulary, limits, the clock, redaction, counters, logging and the shared
records. Imports only the standard library (and orjson for the records' wire form). Decides nothing about
money.
"""
