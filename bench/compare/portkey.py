"""Portkey's open gateway, from npm: routes and translates; it has no keys, quotas or books of its own."""

from pathlib import Path

import rig
from compare import installing
from compare.peer import Running
from farebox.run.demo.processes import free_port

VERSION = "1.15.2"


class Portkey:
    """The gateway with the scripted upstream as its provider."""

    name = "Portkey"
    switched_on = "nothing: no keys or money in the open gateway"
    connections = 64

    def __init__(self) -> None:
        self._program = Path()

    def install(self, cache: Path) -> str:
        folder = installing.node_package(cache, "portkey", f"@portkey-ai/gateway@{VERSION}")
        self._program = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        return VERSION

    def start(self, the_rig: rig.Rig) -> Running:
        port = free_port()
        command = ["node", str(self._program), f"--port={port}", "--headless"]
        process = the_rig.start("portkey", command, the_rig.server_core, NODE_ENV="production")
        the_rig.wait_ready(process, port, "/")
        headers = {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{the_rig.upstream_port}/v1",
        }
        return Running(process, port, "sk-bench", headers)
