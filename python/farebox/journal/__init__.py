"""Room: the log that makes a settled exchange survive a killed process.

Owns frames, segments, syncing and reading. Promises that records come back in order, once, up to the first
damage, and that damage at or before a position known synced is an error. Takes no decisions: what a record
means is the business of those who write and apply it.
"""
