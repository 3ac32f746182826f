"""`make locust`: every scenario for a few seconds against Farebox on the benchmarks' rig, then all at once
through nginx; void unless the books are right.

    python bench/locust/run.py [--scenario NAME] [--users N] [--seconds 5] [LOCUST OPTION…]

Reports (text, HTML, CSV) are left in bench/results/locust. What this script does not know goes to locust: a
threshold, for example.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "locust"
# The folder of the rig comes last: it holds this folder too, which must not hide the package locust.
sys.path.append(str(HERE.parent))

import deployment as deployed  # noqa: E402

import rig  # noqa: E402


@dataclass(frozen=True, slots=True)
class Scenario:
    """Classes of locustfile.py that run together. `processes` > 1: that many locust workers and a master."""

    classes: tuple[str, ...]
    users: int = 20
    seconds_min: int = 0
    processes: int = 1
    is_by_nginx: bool = False


PROMPTS_FIT = "client_max_body_size 50m; client_body_buffer_size 1m;"
"""As nginx/nginx.conf has it: an agent's prompt goes through memory, not through a file."""
ORDINARY = (
    "ChatPlain",
    "ChatStreamed",
    "MessagesPlain",
    "MessagesStreamed",
    "ResponsesPlain",
    "ResponsesStreamed",
)
HARD = ("MixedModels", "Agents", "LongStreams", "SlowReaders", "Disconnects", "EmptyWallet", "WrongKeys")
SCENARIOS = {
    "chat": Scenario(ORDINARY[0:2]),
    "messages": Scenario(ORDINARY[2:4]),
    "responses": Scenario(ORDINARY[4:6]),
    "mixed": Scenario(("MixedModels",)),
    "agents": Scenario(("Agents",)),
    "long": Scenario(("LongStreams",), users=100),
    "slow": Scenario(("SlowReaders",)),
    "disconnects": Scenario(("Disconnects",)),
    "empty": Scenario(("EmptyWallet",)),
    "tiny": Scenario(("TinyWallet",)),
    "keys": Scenario(("WrongKeys",)),
    "crowd": Scenario(("Crowd",), users=1000, seconds_min=20, processes=2),
    "nginx": Scenario(ORDINARY + HARD, users=100, is_by_nginx=True),
}


def run_scenario(
    name: str, deployment: deployed.Deployment, options: argparse.Namespace, more: list[str], nginx_port: int
) -> int:
    """One locust run; its exit code."""
    scenario = SCENARIOS[name]
    users = options.users or scenario.users
    seconds = options.seconds or max(5, scenario.seconds_min)
    port = nginx_port if scenario.is_by_nginx else deployment.farebox.port
    results = str(RESULTS / name)
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), *scenario.classes]
    command += ["--headless", "--only-summary", "--loglevel", "WARNING", "--stop-timeout", "30"]
    command += ["--users", str(users), "--spawn-rate", str(max(20, users / 5)), "--run-time", f"{seconds}s"]
    command += ["--host", f"http://127.0.0.1:{port}", "--long-stream-s", str(seconds / 2)]
    command += ["--csv", results, "--html", f"{results}.html", "--report", f"{results}.txt"]
    command += ["--processes", str(scenario.processes)] if scenario.processes > 1 else []
    way = " through nginx" if scenario.is_by_nginx else ""
    print(f"== {name}: {users} users, {seconds} s{way}: {' '.join(scenario.classes)}", flush=True)
    with rig.on_core(deployment.the_rig.load_core):
        done = subprocess.run(
            [*command, *more], env={**os.environ, **deployment.environment()}, cwd=HERE, check=False
        )
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Locust against Farebox.")
    parser.add_argument("--scenario", choices=[*SCENARIOS, ""], default="", help="one of them; default: all")
    parser.add_argument("--users", type=int, default=0, help="default: 20 to 1000, by scenario")
    parser.add_argument("--seconds", type=int, default=0, help="of each scenario; default: 5, crowd 20")
    options, more = parser.parse_known_args()
    names = [options.scenario] if options.scenario else list(SCENARIOS)
    RESULTS.mkdir(parents=True, exist_ok=True)
    load_core, server_core = rig.two_cores()
    started_s = time.monotonic()
    with rig.Rig(load_core, server_core) as the_rig:
        deployment = deployed.deploy(the_rig)
        nginx_port = 0
        if any(SCENARIOS[name].is_by_nginx for name in names):
            front = {"upstream_port": deployment.farebox.port, "ready_path": "/readyz", "more": PROMPTS_FIT}
            _, nginx_port = the_rig.start_nginx("nginx", **front)
        failed = [name for name in names if run_scenario(name, deployment, options, more, nginx_port)]
        print(f"== {len(names)} scenarios in {time.monotonic() - started_s:.0f} s; reports: {RESULTS}")
        print(deployed.check_money(deployment))
    print(f"NOT PASSED: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
