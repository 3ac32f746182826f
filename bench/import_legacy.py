"""How long an import of the replaced system's data takes, and whether it reconciles to the pico.

Usage: import_legacy.py [USERS] [LOGS] [SEED]. Makes a mongodump, imports it into a fresh SQLite store with
the command itself, sums the store by SQL and compares with sums made beside the data. Exits 1 where they
differ.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from credits.legacy_data import LegacyData, write_dump

DEFAULTS = [100_000, 1_000_000, 1]


def main() -> int:
    given = [int(argument) for argument in sys.argv[1:]]
    users, logs, seed = (given + DEFAULTS[len(given) :])[:3]
    with tempfile.TemporaryDirectory() as folder:
        dump, store = Path(folder) / "dump", Path(folder) / "store.sqlite"
        sums = write_dump(dump, LegacyData(users, logs, seed))
        began_s = time.monotonic()
        command = [sys.executable, "-m", "farebox.run.cli", "import-legacy", str(dump), "--json"]
        done = subprocess.run([*command, "--store", f"sqlite:///{store}"], stdout=subprocess.PIPE, check=True)
        took_s = time.monotonic() - began_s
        report = json.loads(done.stdout)
        with sqlite3.connect(store) as connection:
            pools = dict(connection.execute("SELECT pool, sum(balance_pico) FROM pools GROUP BY pool"))
            rows = dict(
                connection.execute("SELECT pool, sum(amount_pico) FROM credit_transactions GROUP BY pool")
            )
            (logged,) = connection.execute("SELECT sum(charge_pico) FROM request_logs").fetchone()
        connection.close()
    same = all(pools[pool] == rows[pool] == amount for pool, amount in sums.pools.items())
    same = same and logged == sums.logs and report["adds_up"] and not report["problems_total"]
    print(f"{users} users, {logs} request logs, seed {seed}: {took_s:.1f} s")
    for pool, amount in sums.pools.items():
        print(f"{pool}: expected {amount} pico, balances {pools[pool]}, ledger rows {rows[pool]}")
    print(f"request logs: expected {sums.logs} pico, stored {logged}")
    print("reconciles to the pico" if same else "DIFFERENT")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
