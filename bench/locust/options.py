"""The load tests' own options, each also an environment variable, and the keys, which are only that.

Keys never stand on a command line, where other users of the machine could read them, nor on locust's page.
"""

import os
import random
from argparse import Namespace
from pathlib import Path

from locust.argument_parser import LocustArgumentParser
from thresholds import Thresholds

from locust import events

OWN_KEY, EMPTY_KEY, TINY_KEY = "FAREBOX_KEY", "FAREBOX_EMPTY_KEY", "FAREBOX_TINY_KEY"
KEYS_FILE = "FAREBOX_KEYS_FILE"
KEY_MEANING = {
    OWN_KEY: f"the API key of a user with credit; or set {KEYS_FILE} to a file of such keys, one a line",
    EMPTY_KEY: "the API key of a user without credit",
    TINY_KEY: "the API key of a user whose credit runs out during the test",
}

_TEXTS = (
    ("--models", "gpt-5.1", "models for chat and responses, separated by commas"),
    ("--messages-models", "claude-sonnet-4-5", "models for messages, separated by commas"),
    ("--scripted-upstream", "", "base URL of the scripted upstream behind Farebox: its log is counted, too"),
    (
        "--farebox-config",
        "",
        "configuration file of the Farebox under test: the report ends in `farebox verify`",
    ),
    ("--report", "", "write the report to this file, too"),
)
_NUMBERS = (
    ("--max-failure-ratio", 0.0, "of all requests, 0 to 1"),
    ("--min-requests", 1, "a run with fewer requests fails"),
    ("--max-ttft-p95-ms", None, "time to first token of each scenario, 95th percentile"),
    ("--max-gap-p95-ms", None, "gap between chunks of each scenario, 95th percentile"),
    ("--max-response-p95-ms", None, "whole answer of each scenario, 95th percentile"),
    ("--long-stream-s", 30.0, "how long a stream of LongStreams lasts (scripted), or about (a real model)"),
)


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """Options of the suite; `--max-failure-ratio` is also FAREBOX_MAX_FAILURE_RATIO, and so on."""
    group = parser.add_argument_group("Farebox")
    for name, default, meaning in _TEXTS:
        group.add_argument(name, default=default, env_var=_variable(name), help=meaning)
    for name, default, meaning in _NUMBERS:
        kind = int if isinstance(default, int) else float
        group.add_argument(name, type=kind, default=default, env_var=_variable(name), help=meaning)
    group.add_argument(
        "--insecure-tls",
        action="store_true",
        env_var="FAREBOX_INSECURE_TLS",
        help="certificates are not checked",
    )


def thresholds_of(options: Namespace) -> Thresholds:
    """The thresholds as asked for."""
    return Thresholds(
        failure_ratio_max=options.max_failure_ratio,
        requests_min=options.min_requests,
        first_token_p95_ms_max=options.max_ttft_p95_ms,
        chunk_gap_p95_ms_max=options.max_gap_p95_ms,
        response_p95_ms_max=options.max_response_p95_ms,
    )


def missing_key(variable: str) -> str:
    """What to do about a key that is not given; empty when it is, or none is needed."""
    if not variable or os.environ.get(variable) or (variable == OWN_KEY and os.environ.get(KEYS_FILE)):
        return ""
    return f"set {variable}: {KEY_MEANING[variable]}"


def key_of(variable: str) -> str:
    """A key for one more simulated user; of several, any."""
    file = os.environ.get(KEYS_FILE, "")
    if variable == OWN_KEY and file:
        return random.choice(Path(file).read_text(encoding="utf-8").split())
    return os.environ[variable] if variable else ""


def models_of(options: Namespace, wire_format: str) -> list[str]:
    """The models a wire format is asked for."""
    names = options.messages_models if wire_format == "messages" else options.models
    return [name.strip() for name in names.split(",") if name.strip()]


def _variable(option: str) -> str:
    return "FAREBOX_" + option.removeprefix("--").removeprefix("farebox-").replace("-", "_").upper()
