"""The listening sockets of a deployment: bound once by the supervisor, kept, and passed on to its workers.

A worker that dies or is replaced leaves its sockets open here, so connections wait in their queues for its
successor instead of being refused. Each service has one TCP socket that its workers share and, where
`worker_sockets` names a folder, one unix socket for each worker, so that a proxy in front can keep a key with
one worker. Sockets that the service manager handed over are used instead of new ones.
"""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.config.settings import Service, Settings
from farebox.run.notify import activated_sockets


@dataclass(slots=True)
class Listeners:
    """Every listening socket. `shared`: one a service; `own`: slot -> for each service one, or none.

    `made`: unix sockets bound here, whose files go with them; those handed over stay with who made them.
    """

    shared: list[socket.socket] = field(default_factory=list)
    own: list[list[list[socket.socket]]] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)

    def of_slot(self, slot: int) -> list[list[socket.socket]]:
        """What the worker in a slot listens on, by service."""
        return [[tcp, *own] for tcp, own in zip(self.shared, self.own[slot], strict=True)]

    def close(self) -> None:
        """Stop listening and remove the unix sockets that were made here."""
        for listener in self.all():
            listener.close()
        for path in self.made:
            path.unlink(missing_ok=True)

    def all(self) -> list[socket.socket]:
        """Every one of them."""
        own = (each for slot in self.own for service in slot for each in service)
        return [*self.shared, *own]


def listen(settings: Settings, workers: int) -> Listeners:
    """Bind what the configuration asks for. Raises UsageError, which says what to do."""
    listeners = Listeners()
    handed_over = {_address(each): each for each in activated_sockets()}
    try:
        for service in settings.services:
            address = (service.host, service.port)
            taken = handed_over.pop(address) if address in handed_over else _bound(service)
            listeners.shared.append(taken)
        for slot in range(workers):
            listeners.own.append([[] for _ in settings.services])
            for number, service in enumerate(settings.services):
                if service.worker_sockets is None:
                    continue
                path = worker_socket(service, slot)
                if str(path) not in handed_over:
                    handed_over[str(path)] = _bound_unix(path, service)
                    listeners.made.append(path)
                listeners.own[slot][number].append(handed_over.pop(str(path)))
        if handed_over:
            names = ", ".join(str(address) for address in handed_over)
            raise UsageError(f"the service manager handed over {names}, which no configuration names")
    except BaseException:
        listeners.close()
        for unclaimed in handed_over.values():
            unclaimed.close()
        raise
    for listener in listeners.all():
        listener.set_inheritable(True)
    return listeners


def worker_socket(service: Service, slot: int) -> Path:
    """The unix socket of one worker of a service; `service.worker_sockets` must be set."""
    folder = service.worker_sockets or Path()
    return folder / f"{service.name}-{slot}.sock"


def _address(listener: socket.socket) -> tuple[str, int] | str:
    name = listener.getsockname()
    return name if isinstance(name, str) else (name[0], name[1])


def _bound(service: Service) -> socket.socket:
    try:
        return socket.create_server((service.host, service.port), backlog=limits.accept_backlog)
    except OSError as error:
        raise UsageError(
            f"{service.file}: port {service.port} on {service.host} cannot be bound: {_reason(error)}; "
            "stop what uses it or change `port`"
        ) from None


def _bound_unix(path: Path, service: Service) -> socket.socket:
    """A unix socket any local user may connect to who may enter its folder: the folder is the fence."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_served(path):
            raise UsageError(f"{service.file}: {path} is in use by another process; stop it first")
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(limits.accept_backlog)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"{service.file}: worker_sockets: {path} cannot be bound: {_reason(error)}; "
            "create the folder and let this user write to it"
        ) from None
    except UsageError:
        listener.close()
        raise
    return listener


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _reason(error: OSError) -> str:
    """What the system says, without what the socket module adds to it."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
