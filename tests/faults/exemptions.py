"""Rows of the catalogues without a test of their own, and why: read by tests and by the page of faults."""

EXEMPTIONS = {
    "hole_37": "There are no money limits per key: a key spends its owner's wallet, which one lease protocol "
    "guards at any number of workers. Requests a minute are counted per worker (docs/DECISIONS.md).",
    "J36": "The kernel ends a process with the same signal as kill -9: what J08 and the bank test show of "
    "random moments holds for it.",
    "L18": "There are no vouchers: credit comes by payments, grants and transfers, each with a "
    "reference of its own that books once (L19).",
    "L20": "Requests to models have no idempotency keys: each is an exchange of its own, held and settled "
    "once. Writes of the console have them.",
    "L21": "As L20: requests to models have no idempotency keys; the console refuses a key "
    "with another body.",
    "L22": "As L20: nothing is remembered of a refused request, so it may be repeated after a top-up.",
}
