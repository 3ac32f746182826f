"""docs/DEPLOY.md followed word for word, in a clean Debian of its own.

    python tests/deploy/follow.py dist/farebox-*.whl

`make follow-deploy` runs it, as root: debootstrap makes the Debian, a namespace keeps its ports apart.
What a document leaves to the operator (addresses, credential, certificates, names) is done between its
commands, as its table of decisions says; the upstream is the scripted one. systemd does not run in a folder,
so `systemctl` is a stand-in that starts Farebox by the shipped units (`systemctl.py`). Exit status 1 where a
command of the document fails.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DOMAINS = ("chat", "chat2")
UPSTREAM_PORT = 9000
CREDENTIAL = "sk-upstream-of-this-test"


def blocks(section: str) -> list[str]:
    """The commands of one section of the document, block by block."""
    text = (REPOSITORY / "docs" / "DEPLOY.md").read_text(encoding="utf-8")
    (found,) = [part for part in text.split("\n## ") if part.startswith(f"{section}\n")]
    return re.findall(r"^```sh\n(.*?)^```", found, re.DOTALL | re.MULTILINE)


def in_table(section: str) -> list[str]:
    """The systemctl commands that a section's table names."""
    text = (REPOSITORY / "docs" / "DEPLOY.md").read_text(encoding="utf-8")
    (found,) = [part for part in text.split("\n## ") if part.startswith(f"{section}\n")]
    rows = [line for line in found.splitlines() if line.startswith("| ")]
    return [command for row in rows for command in re.findall(r"`(systemctl [^`]+)`", row)]


class Debian:
    """A clean Debian in a folder, and a network namespace for what it serves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.namespace = f"deploy-{os.getpid()}"

    def make(self, original: Path | None) -> None:
        """Make it anew, or as a copy; with this machine's name servers and certificate authorities."""
        if original is None:
            _run("debootstrap", "--variant=minbase", "bookworm", str(self.root))
        else:
            _run("cp", "--archive", str(original), str(self.root))
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
        trusted = self.root / "usr/local/share/trusted.pem"
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", trusted)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """With its list of processes and a network namespace; its devices are those debootstrap made."""
        process_list = str(self.root / "proc")
        try:
            _run("mount", "-t", "proc", "proc", process_list)
            _run("ip", "netns", "add", self.namespace)
            _run("ip", "-n", self.namespace, "link", "set", "lo", "up")
            yield
        finally:
            self._end_processes()
            for command in (["umount", "--lazy", process_list], ["ip", "netns", "delete", self.namespace]):
                subprocess.run(command, check=False)

    def _end_processes(self) -> None:
        """End what was started in the folder and is still there."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "root").readlink() == self.root:
                    os.kill(int(entry.name), 9)

    def command(self, script: str, *, network: bool) -> list[str]:
        """A command line that runs a shell script inside; `network`: on this machine's own network."""
        inside = [] if network else ["ip", "netns", "exec", self.namespace]
        trusted = "/usr/local/share/trusted.pem"
        environment = [
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "DEBIAN_FRONTEND=noninteractive",
            f"SSL_CERT_FILE={trusted}",
            f"PIP_CERT={trusted}",
        ]
        shell = ["/bin/bash", "-euo", "pipefail", "-x", "-c", f"cd ~/farebox\n{script}"]
        return [*inside, "chroot", str(self.root), "/usr/bin/env", "-i", *environment, *shell]

    def type(self, script: str, *, network: bool = False) -> str:
        """Run commands of the document; what they said. Ends the program where one fails."""
        done = subprocess.run(
            self.command(script, network=network),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        sys.stdout.write(done.stdout)
        sys.stdout.flush()
        if done.returncode:
            log = self.root / "var/log/farebox.log"
            sys.stdout.write(log.read_text()[-3000:] if log.exists() else "")
            sys.exit(f"docs/DEPLOY.md: a command failed with status {done.returncode}:\n{script}")
        return done.stdout


def prepare(debian: Debian, wheel: Path) -> None:
    """What a person has before he opens the document: a folder, a name service, a service manager."""
    place = debian.root / "root/farebox"
    for name in ("configs", "nginx"):
        shutil.copytree(REPOSITORY / name, place / name)
    shutil.copy(wheel, place)
    names = " ".join(f"{name}.example.com" for name in DOMAINS)
    (debian.root / "etc/hosts").write_text(f"127.0.0.1 localhost {names}\n")
    target = debian.root / "usr/local/bin/systemctl"
    program = Path(__file__).with_name("systemctl.py").read_text(encoding="utf-8")
    target.write_text(f"#!/usr/bin/python3\n{program}", encoding="utf-8")
    target.chmod(0o755)
    (debian.root / "etc/systemd/system").mkdir(parents=True, exist_ok=True)


def decide(debian: Debian) -> None:
    """The operator's decisions: address, credential, certificates."""
    for name in ("openhands", "ohmygpt"):
        path = debian.root / f"etc/farebox/config-{name}-prod.json"
        text = path.read_text(encoding="utf-8")
        changed = text.replace("https://llm-proxy.example.com", f"http://127.0.0.1:{UPSTREAM_PORT}")
        assert changed != text
        path.write_text(changed, encoding="utf-8")
    environment = debian.root / "etc/farebox/environment"
    environment.write_text(f"OPENHANDS_API_KEY={CREDENTIAL}\n", encoding="utf-8")
    environment.chmod(0o640)
    for name in DOMAINS:
        debian.type(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
            f"-subj /CN={name}.example.com -addext subjectAltName=DNS:{name}.example.com "
            f"-keyout /etc/farebox/tls/{name}.key -out /etc/farebox/tls/{name}.crt\n"
            f"cat /etc/farebox/tls/{name}.crt >> /usr/local/share/trusted.pem"
        )


def start_upstream(debian: Debian) -> "subprocess.Popen[bytes]":
    arguments = f"--port {UPSTREAM_PORT} --key {CREDENTIAL}"
    script = f"exec /opt/farebox/bin/python -m farebox.run.demo.upstream {arguments}"
    return subprocess.Popen(
        debian.command(script, network=False), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def follow(debian: Debian, wheel: Path) -> None:
    """The document from its first command to the backup."""
    prepare(debian, wheel)
    with debian.running():
        install, check = blocks("Before")
        debian.type(install, network=True)
        decide(debian)
        assert "0 of them where files should be alike" in debian.type(check)
        upstream = start_upstream(debian)
        try:
            for block in blocks("Deploying"):
                debian.type(block)
            (after,) = blocks("After")
            said = debian.type(after)
            assert said.count("all as it should be") == 2, "both smoke requests must be as they should"
            log = debian.root / "var/log/farebox.log"
            for command, answer in zip(
                in_table("Changing a running deployment"),
                ("the configuration was read anew", "all workers are replaced", "2 workers serve"),
                strict=True,
            ):
                before = log.read_text().count(answer)
                debian.type(command)
                _wait(lambda before=before, answer=answer: log.read_text().count(answer) > before)
            again = after.split("farebox wallet grant smoke --pool credits --amount 1\n")[1]
            config = "FAREBOX_CONFIG=/etc/farebox/config-openhands-prod.json"
            said = debian.type(f"export {config} FAREBOX_SMOKE_KEY={_key(said)}\n{again}")
            assert said.count("all as it should be") == 2
            for block in blocks("Backup and restore"):
                debian.type(block)
            debian.type("systemctl stop farebox")
        finally:
            upstream.kill()
            upstream.wait()


def _key(said: str) -> str:
    """The key that the document's own command put into the environment, from the shell's trace."""
    found = re.search(r"FAREBOX_SMOKE_KEY=(sk-trollllm-[0-9a-f]+)", said)
    assert found is not None
    return found[1]


def _wait(condition: object, timeout_s: float = 60.0) -> None:
    ends_s = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < ends_s, "it did not come about in time"
        time.sleep(0.2)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Follow docs/DEPLOY.md in a clean Debian.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--debian", type=Path, help="a folder made by debootstrap, to be copied")
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("following docs/DEPLOY.md needs root and debootstrap (apt-get install debootstrap)")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="farebox-deploy-", ignore_cleanup_errors=True) as folder:
        debian = Debian(Path(folder) / "debian")
        debian.make(options.debian)
        follow(debian, options.wheel)
    print(json.dumps({"followed": "docs/DEPLOY.md", "seconds": round(time.monotonic() - began_s)}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
