"""The workers of a deployment: one a slot, replaced one after the other on request, without a stream cut.

A replacement starts beside its predecessor on the same sockets with a journal of its own. Once it serves, the
predecessor retires: it takes no more connections, ends the exchanges it has, gives its leases back, and goes.
"""

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from farebox.base import limits
from farebox.run.children import Child
from farebox.run.control import ask

_log = logging.getLogger("farebox.supervisor")


@dataclass(slots=True)
class Workforce:
    """Current workers by slot, and those that are coming or going. `make(slot)` makes a new child.

    `retired` is called with each child that has gone for good.
    """

    make: Callable[[int], Child]
    retired: Callable[[Child], None]
    current: list[Child] = field(default_factory=list)
    _retiring: list[Child] = field(default_factory=list)
    successor: Child | None = None
    """The process that is to take over from one of `current`; it has no clients before it serves."""
    _slots_to_replace: list[int] = field(default_factory=list)
    _failed: int = 0
    """Successors in a row that did not come to serve."""

    def start(self, count: int) -> None:
        """Start one worker a slot."""
        self.current = [self.make(slot) for slot in range(count)]
        for child in self.current:
            child.start()

    def children(self) -> list[Child]:
        """Every worker process, whatever its part."""
        coming = [self.successor] if self.successor is not None else []
        return [*self.current, *coming, *self._retiring]

    def serving(self) -> bool:
        """Whether every slot serves."""
        return all(child.state() == "serving" for child in self.current)

    def look(self) -> None:
        """Keep the current ones running, bring a replacement on, let the retired ones go."""
        for child in self.current:
            child.look()
        self._look_at_retiring()
        self._go_on_replacing()

    # -- rolling replacement ---------------------------------------------------------------------------------
    def replace_all(self) -> None:
        """Begin to replace every worker by a new process, one after the other."""
        if self._slots_to_replace:
            _log.warning("workers are being replaced already; asked again: it begins anew")
        if self.successor is not None:  # it was made for another slot than the first
            self._let_go(self.successor)
        self._slots_to_replace = list(range(len(self.current)))
        self._failed = 0
        _log.info("replacing %d workers, one after the other", len(self.current))

    def _go_on_replacing(self) -> None:
        if not self._slots_to_replace:
            return
        slot = self._slots_to_replace[0]
        successor = self.successor
        if successor is None:
            self.successor = self.make(slot)
            self.successor.try_to_start()
            return
        if successor.pulse is not None:
            successor.pulse.look(time.monotonic())
        if successor.state() == "serving":
            self._take_over(slot, successor)
        elif not successor.runs() or time.monotonic() - successor.started_s > limits.replacement_start_s:
            self._give_up(successor)

    def _give_up(self, successor: Child) -> None:
        """End a successor that does not serve; what failed once may have been the moment's."""
        self._let_go(successor)
        self._failed += 1
        if self._failed < limits.replacement_attempts_max:
            _log.warning("%s does not come to serve; trying again", successor.name)
            return
        _log.error("%s does not come to serve either; the workers that run stay", successor.name)
        self._slots_to_replace.clear()

    def _let_go(self, successor: Child) -> None:
        """End a process that nobody was handed to."""
        successor.signal(signal.SIGKILL)
        self.successor = None
        self._retiring.append(successor)

    def _take_over(self, slot: int, successor: Child) -> None:
        predecessor = self.current[slot]
        self.current[slot] = successor
        self.successor = None
        self._failed = 0
        del self._slots_to_replace[0]
        _log.info("%s serves; %s retires", successor.name, predecessor.name)
        self._retiring.append(predecessor)
        if predecessor.control is not None:
            answer = ask(predecessor.control, {"do": "retire"}, limits.control_answer_s)
            if "error" in answer:
                _log.error("%s: %s; it is ended", predecessor.name, answer["error"])
                predecessor.signal(signal.SIGTERM)
        if not self._slots_to_replace:
            _log.info("all workers are replaced; %d still end their exchanges", len(self._retiring))

    def _look_at_retiring(self) -> None:
        for child in list(self._retiring):
            if not child.runs():
                child.forget()
                self._retiring.remove(child)
                self.retired(child)
