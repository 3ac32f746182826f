"""Promise: the shipped systemd units are accepted by systemd's own check, and name the sockets nginx uses."""

import json
import re
import subprocess
import sys
from pathlib import Path

from needs import REPOSITORY, needs_program

UNITS = REPOSITORY / "configs" / "systemd"
CONFIGS = ("openhands", "ohmygpt")


def test_the_units_pass_systemd_analyze_without_a_word(tmp_path: Path) -> None:
    analyze = needs_program("systemd-analyze")
    for unit in UNITS.iterdir():
        text = unit.read_text(encoding="utf-8").replace("/opt/farebox/bin/farebox", sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    checked = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "farebox.service"), str(tmp_path / "farebox.socket")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_units_nginx_and_configurations_name_the_same_sockets() -> None:
    wanted: set[str] = set()
    for name in CONFIGS:
        document = json.loads((REPOSITORY / "configs" / f"config-{name}-prod.json").read_text())
        wanted.add(f"127.0.0.1:{document['port']}")
        for slot in range(document["workers"]):
            wanted.add(f"{document['worker_sockets']}/{document['name']}-{slot}.sock")
    activated = re.findall(r"^ListenStream=(.+)$", (UNITS / "farebox.socket").read_text(), re.MULTILINE)
    assert set(activated) == wanted
    balanced = re.findall(r"server unix:(\S+) ", (REPOSITORY / "nginx" / "nginx.conf").read_text())
    assert set(balanced) == {socket for socket in wanted if socket.startswith("/")}


def test_the_service_serves_both_configurations() -> None:
    service = (UNITS / "farebox.service").read_text(encoding="utf-8")
    for name in CONFIGS:
        assert service.count(f"/etc/farebox/config-{name}-prod.json") == 2
