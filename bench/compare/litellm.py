"""LiteLLM's proxy, from PyPI: one worker, master key, no database.

Its virtual keys, budgets and spend logs need Postgres and Prisma, and Prisma's query engine is a program that
is in no package registry; so it is measured without money.
"""

import json
from pathlib import Path

import rig
from compare import installing
from compare.peer import Running
from farebox.run.demo.processes import free_port

VERSION = "1.106.2"
MASTER_KEY = "sk-bench-master"


class LiteLLM:
    """The proxy with one model."""

    name = "LiteLLM"
    switched_on = "master key only, one worker"
    connections = 16

    def __init__(self) -> None:
        self._program = Path()

    def install(self, cache: Path) -> str:
        programs = installing.python_packages(cache, "litellm", [f"litellm[proxy]=={VERSION}"])
        self._program = programs / "litellm"
        return VERSION

    def start(self, the_rig: rig.Rig) -> Running:
        config = the_rig.folder / "litellm.json"  # YAML reads JSON
        model = {
            "model": f"openai/{rig.MODEL}",
            "api_base": f"http://127.0.0.1:{the_rig.upstream_port}/v1",
            "api_key": "sk-bench",
        }
        document = {
            "model_list": [{"model_name": rig.MODEL, "litellm_params": model}],
            "general_settings": {"master_key": MASTER_KEY},
            "litellm_settings": {"telemetry": False},
        }
        config.write_text(json.dumps(document))
        port = free_port()
        command = [str(self._program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        process = the_rig.start(
            "litellm",
            [*command, "--num_workers", "1"],
            the_rig.server_core,
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        )
        the_rig.wait_ready(process, port, "/health/liveliness", limit_s=120)
        return Running(process, port, MASTER_KEY)
