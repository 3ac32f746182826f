"""What systemd is told (sd_notify) and hands over (socket activation); nothing happens where it is not there.

The two small protocols are plain: a datagram of KEY=VALUE lines to `$NOTIFY_SOCKET`, and listening sockets as
file descriptors from 3 on, counted by `$LISTEN_FDS` for the process named by `$LISTEN_PID`
(sd_notify(3), sd_listen_fds(3)).
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

_FIRST_DESCRIPTOR: Final = 3


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager, for example `READY=1` or `STATUS=draining`."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)  # a manager that does not read must not hold up its service
        sender.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """A reload begins; `READY=1` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def activated_sockets(environment: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets that were handed over, in their order."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environment.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=_FIRST_DESCRIPTOR + number) for number in range(count)]
