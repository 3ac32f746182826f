"""How configuration faults are told: all of them at once, each with its file and JSON path."""

from dataclasses import dataclass
from pathlib import Path

from farebox.base.errors import UsageError
from farebox.base.units import pico_from_usd


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault or warning: file, JSON path (`models[3].billing_upstream`, may be empty), text."""

    file: Path
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.message}" if self.path else f"{self.file}: {self.message}"


class ConfigError(UsageError):
    """The configuration cannot be used; `problems` says everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class Problems:
    """Collects faults and warnings of one file while it is being read."""

    __slots__ = ("errors", "file", "warnings")

    def __init__(self, file: Path) -> None:
        self.file = file
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, path: str, message: str) -> None:
        """Something that stops the start."""
        self.errors.append(Problem(self.file, path, message))

    def pico(self, amount: str, path: str) -> int:
        """An amount of USD in pico-USD; 0 and an error where it is none."""
        try:
            return pico_from_usd(amount)
        except ValueError as error:
            self.error(path, str(error))
            return 0

    def warn(self, path: str, message: str) -> None:
        """Something an operator should know; it is shown by check-config and in the start-up log."""
        self.warnings.append(Problem(self.file, path, message))
