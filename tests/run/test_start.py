"""What a start leaves out while it imports is whole again afterwards, and what it left out cannot do harm."""

import json
import subprocess
import sys

PROGRAM = """
import gc, json, ssl
from farebox.run.start import imports
whole = ssl.SSLContext.set_default_verify_paths
with imports():
    within = gc.isenabled()
    from aiohttp import connector
client = connector._SSL_CONTEXT_VERIFIED
print(json.dumps({
    "within": within,
    "collects": gc.isenabled(),
    "frozen": gc.get_freeze_count() > 10_000,
    "restored": ssl.SSLContext.set_default_verify_paths is whole,
    "verifies": client.verify_mode == ssl.CERT_REQUIRED and client.check_hostname,
    "trusted": len(client.get_ca_certs()),
}))
"""


def test_M11_imports_leave_tls_and_the_collector_as_they_were_and_aiohttps_client_without_trust() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "within": False,
        "collects": True,
        "frozen": True,
        "restored": True,
        "verifies": True,
        "trusted": 0,
    }


def test_a_start_imports_neither_tables_for_people_nor_a_store() -> None:
    program = "from farebox.run.cli import build; import sys; build('serve'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"rich", "pymongo", "sqlite3", "aiohttp"} & set(done.stdout.split())
