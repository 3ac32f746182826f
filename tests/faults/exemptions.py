"""Rows of the catalogues without a test of their own, and why: read by tests and by the page of faults."""

EXEMPTIONS = {
    "hole_37": "There are no money limits per key: a key spends its owner's wallet, which one lease protocol "
    "guards at any number of workers. Requests a minute are counted per worker (docs/DECISIONS.md).",
}
