"""A stand-in for systemctl where no systemd runs: it does with Farebox's units what systemd would.

Understands what docs/DEPLOY.md asks of it. From the units it takes user, folders, environment file, start
command and its check, listening sockets and the notify protocol; a start returns at READY=1. nginx is started
and reloaded as its own unit would do it.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path("/etc/systemd/system")
MAIN_PID = Path("/run/farebox.pid")
START_S = 60.0
HAND_OVER = """
import os, sys
os.umask(int(sys.argv[1], 8))
descriptors = [os.dup2(int(each), 100 + number) for number, each in enumerate(sys.argv[2].split(","))]
for number, each in enumerate(descriptors):
    os.dup2(each, 3 + number)
    os.close(each)
os.environ.update(LISTEN_FDS=str(len(descriptors)), LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""What is run instead of the service: the sockets become descriptors 3 on, and its process id is theirs."""


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def one(unit: str, key: str) -> str:
    (value,) = values(unit, key)
    return value


def listeners() -> list[socket.socket]:
    made = []
    for address in values("farebox.socket", "ListenStream"):
        if address.startswith("/"):
            Path(address).parent.mkdir(mode=0o755, exist_ok=True)
            Path(address).unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(address)
            Path(address).chmod(int(one("farebox.socket", "SocketMode"), 8))
        else:
            host, port = address.rsplit(":", 1)
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, int(port)))
        listener.listen(int(one("farebox.socket", "Backlog")))
        made.append(listener)
    return made


def start() -> None:
    user = one("farebox.service", "User")
    for folder, mode in (("/var/lib/farebox", 0o700), ("/run/farebox", 0o755)):
        Path(folder).mkdir(mode=mode, exist_ok=True)
        subprocess.run(["chown", f"{user}:{user}", folder], check=True)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/var/lib/farebox"}
    for line in Path(one("farebox.service", "EnvironmentFile")).read_text().splitlines():
        name, _, value = line.partition("=")
        environment[name] = value
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind("/run/farebox.notify")
    Path("/run/farebox.notify").chmod(0o666)
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--no-new-privs"]
    check = one("farebox.service", "ExecStartPre").split()
    subprocess.run([*as_user, *check], check=True, env=environment, stdout=subprocess.DEVNULL)
    sockets = listeners()
    descriptors = [str(each.fileno()) for each in sockets]
    mask = one("farebox.service", "UMask")
    program = [*as_user, *one("farebox.service", "ExecStart").split()]
    with Path("/var/log/farebox.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, mask, ",".join(descriptors), *program],
            env={**environment, "NOTIFY_SOCKET": "/run/farebox.notify"},
            pass_fds=[each.fileno() for each in sockets],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    MAIN_PID.write_text(str(process.pid))
    manager.settimeout(START_S)
    while b"READY=1" not in manager.recv(4096):
        if process.poll() is not None:
            sys.exit(Path("/var/log/farebox.log").read_text())


def stop() -> None:
    pid = int(MAIN_PID.read_text())
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.1)
    Path("/run/farebox.notify").unlink(missing_ok=True)


def tell(number: signal.Signals) -> None:
    os.kill(int(MAIN_PID.read_text()), number)


def reload_or_restart_nginx() -> None:
    running = Path("/run/nginx.pid").exists() and Path("/run/nginx.pid").read_text().strip()
    subprocess.run(["nginx", "-s", "reload"] if running else ["nginx"], check=True)


def main(words: list[str]) -> None:
    if words == ["daemon-reload"]:
        return
    if words == ["enable", "--now", "farebox.socket", "farebox.service"]:
        start()
    elif words == ["reload-or-restart", "nginx"]:
        reload_or_restart_nginx()
    elif words == ["reload", "farebox"]:
        tell(signal.SIGHUP)
    elif words == ["kill", "-s", "USR2", "--kill-who=main", "farebox"]:
        tell(signal.SIGUSR2)
    elif words == ["restart", "farebox"]:
        stop()
        start()
    elif words == ["stop", "farebox"]:
        stop()
    else:
        sys.exit(f"the stand-in for systemctl does not know: {' '.join(words)}")


if __name__ == "__main__":
    main(sys.argv[1:])
