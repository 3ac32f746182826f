"""Promise: the commands of docs/DEPLOY.md can be typed as they stand; `make follow-deploy` types them."""

import re
import shlex
import subprocess

import pytest

from deploy.follow import blocks, in_table
from deploy.systemctl import main as systemctl
from needs import REPOSITORY

SECTIONS = ("Before", "Deploying", "After", "Backup and restore")
COMMANDS = [block for section in SECTIONS for block in blocks(section)]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_has_commands_that_a_shell_can_read(section: str) -> None:
    for block in blocks(section):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert "..." not in block


def test_files_that_commands_install_are_shipped() -> None:
    for block in COMMANDS:
        for name in re.findall(r"(?<![\w/])(?:configs|nginx)/[\w./-]+", block):
            assert (REPOSITORY / name).is_file(), name


def test_every_systemctl_command_is_one_the_follower_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[list[str]] = []
    for name in ("start", "stop", "reload_or_restart_nginx"):
        monkeypatch.setattr(f"deploy.systemctl.{name}", lambda: done.append([]))
    monkeypatch.setattr("deploy.systemctl.tell", lambda number: done.append([number.name]))
    lines = [line for block in COMMANDS for line in block.splitlines() if line.startswith("systemctl ")]
    lines += in_table("Changing a running deployment")
    assert len(lines) >= 6
    for line in lines:
        systemctl(shlex.split(line)[1:])
    assert ["SIGHUP"] in done
    assert ["SIGUSR2"] in done
