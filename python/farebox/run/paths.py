"""Where one deployment keeps its files: one function per file, all under the configured data directory."""

from pathlib import Path
from urllib.parse import quote

from farebox.config.secrets import store_url
from farebox.config.settings import Settings


def store_address(settings: Settings) -> str:
    """The URL that `open_store` takes, the same for every process; it may hold a password: never log it.

    Raises ConfigError where the store's URL cannot be read.
    """
    secret = store_url(settings.store, settings.services[0].file)
    return secret.reveal() if secret is not None else f"sqlite:///{quote(str(settings.store.path))}"


def writer_socket(settings: Settings) -> Path:
    """The unix socket on which the writer serves this host's workers."""
    return settings.data_dir / "run" / "writer.sock"


def counters_file(settings: Settings, worker: int) -> Path:
    """The counters of one worker, in shared memory while it runs."""
    return settings.data_dir / "run" / f"worker-{worker}.counters"


def counters_files(settings: Settings) -> list[Path]:
    """The counters of all workers."""
    return sorted((settings.data_dir / "run").glob("worker-*.counters"))


def control_socket(settings: Settings, worker: int) -> Path:
    """The unix socket on which one worker answers its supervisor (see run/control.py)."""
    return settings.data_dir / "run" / f"worker-{worker}.sock"


def control_sockets(settings: Settings) -> list[Path]:
    """The control sockets of all workers."""
    return sorted((settings.data_dir / "run").glob("worker-*.sock"))


def retired_counters_file(settings: Settings) -> Path:
    """What workers that were replaced had counted; it is summed with the others."""
    return settings.data_dir / "run" / "worker-retired.counters"


def config_copies(settings: Settings) -> Path:
    """The folder with copies of the configuration that is in force."""
    return settings.data_dir / "run" / "config"


def store_sessions(settings: Settings, process: str) -> Path:
    """The store's sessions of one process, for its successor (see `open_store`)."""
    return settings.data_dir / "run" / f"{process}.sessions"


def writer_status_file(settings: Settings) -> Path:
    """The writer's status as JSON, written about once a second."""
    return settings.data_dir / "run" / "writer.json"


def prepare(settings: Settings) -> None:
    """Make the folders. Raises OSError."""
    (settings.data_dir / "run").mkdir(parents=True, exist_ok=True)
    settings.journal_dir.mkdir(parents=True, exist_ok=True)
