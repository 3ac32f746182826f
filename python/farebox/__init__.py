"""Farebox: a prepaid meter in front of LLM APIs.

Rooms, from the ground up: base; wire, meter, ledger; config; store; journal; writer, proxy; credits; console;
run. Imports go down only, and the import-linter contract in pyproject.toml enforces it. Each room's
`__init__` says what it owns, what it promises and what it leaves to others.
"""

import os

from farebox.base.sources_only import use_sources

__version__ = "0.1.0"

use_sources(os.environ)
