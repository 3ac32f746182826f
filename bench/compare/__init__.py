"""`make bench-compare`: Farebox, nginx and other gateways under one load, and what the load did to the money.

One file a peer (`one_api.py`, `litellm.py`, …) says how it is installed, what is switched on, how a key with
a quota is made and how its books are read; `peer.py` is what they have in common. `money.py` has the
experiments with money, `comparison.py` the tables, `__main__.py` the run. Peers come from the public package
registries alone, at pinned versions, into `dist/compare`; one that does not install or run here is reported
with the reason, and the others run.
"""
