"""nginx as a plain reverse proxy: what a hop costs that does nothing with a request."""

from pathlib import Path

import machine
import rig
from compare.peer import CannotRunError, Running


class Nginx:
    """The baseline of every ratio."""

    name = "nginx"
    switched_on = "nothing: a plain proxy"
    connections = 64

    def install(self, _cache: Path) -> str:
        version = machine.versions().get("nginx")
        if version is None:
            raise CannotRunError("nginx is not installed; `make system-deps` installs it")
        return version

    def start(self, the_rig: rig.Rig) -> Running:
        process, port = the_rig.start_nginx()
        return Running(process, port, "none")
