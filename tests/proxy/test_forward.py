"""A client that leaves a free request late takes no connection from the exchange that has it (C01)."""

from typing import Any

from farebox.proxy.forward import _Reply


class Pooled:
    """A connection that only notes whether it was cut."""

    def __init__(self) -> None:
        self.was_cut = False

    def abort(self) -> None:
        self.was_cut = True


async def test_C01_leaving_a_free_request_cuts_its_connection_only_while_it_is_its_own() -> None:
    for is_answered in (False, True):
        connection: Any = Pooled()
        reply = _Reply(connection)
        if is_answered:
            reply._complete(b"{}", 0)
        reply.give_up()
        assert connection.was_cut is not is_answered
        assert reply.over.is_set()
