"""new-api: a successor of one-api, from the Go module proxy; SQLite, as installed.

But for one thing: by default it refuses requests while the machine is busier than 90 %, which is what a
benchmark makes it.
"""

from pathlib import Path
from typing import Any, ClassVar

from compare import installing
from compare.one_api import OneApi

MODULE = "github.com/QuantumNous/new-api"
VERSION = "v0.13.2"


class NewApi(OneApi):
    """Its tables are those of one-api, with more columns."""

    channel: ClassVar[dict[str, Any]] = {"channel_info": b"{}", "settings": "{}"}
    options: ClassVar[dict[str, str]] = {"performance_setting.monitor_enabled": "false"}
    database_options = "?_busy_timeout=30000"
    """What it uses when no database is named."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "new-api"

    def install(self, cache: Path) -> str:
        self.program = installing.go_program(cache, "new-api", MODULE, VERSION, "web/dist/index.html")
        return VERSION
