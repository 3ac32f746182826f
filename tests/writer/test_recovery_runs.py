"""The compiled fold of a journal is the frame-by-frame one: whatever stands in it, in whatever order, cut off
anywhere, recovery finds the same open exchanges, debits, unsynced records and end (M5, MONEY section 8).
"""

import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from farebox.base import frames as kinds
from farebox.base.ids import position
from farebox.base.records import Debit
from farebox.journal import prices_payload, progress_payload
from farebox.journal.check import walk
from farebox.journal.files import Files
from farebox.journal.frames import Frame, encode
from farebox.journal.recovery import Fold
from farebox.journal.segments import encode_header, segment_path
from farebox.writer.recovery import debits_after
from journal.rig import ended, opened
from writer.test_plain_records import plain_settlements

JOURNAL = "0123456789abcdef"
exchanges = st.sampled_from(["e1", "e2", "e3", "an exchange"])


@st.composite
def records(draw: st.DrawFn) -> tuple[int, bytes]:
    """A record as a worker writes it, or one of another version."""
    exchange = draw(exchanges)
    kind = draw(st.sampled_from(sorted(kinds.NAMES)))
    if kind == kinds.PRICES:
        return kind, prices_payload(draw(st.integers(1, 2)), b"{}")
    if kind == kinds.OPEN:
        return kind, opened(exchange, draw(st.integers(0, 3)))
    if kind == kinds.PROGRESS:
        return kind, progress_payload(exchange, draw(st.integers(0, 3)))
    if kind == kinds.SETTLE and draw(st.booleans()):
        return kind, dataclasses.replace(draw(plain_settlements()), exchange=exchange).encode()
    return kind, ended(exchange)


@st.composite
def segments(draw: st.DrawFn) -> list[bytes]:
    """The segments of a journal: epochs follow each other, the last one may be torn."""
    epoch, number, crc, synced_pos, last_pos = 1, 0, 0, 0, 0
    made = []
    for sequence in range(1, draw(st.integers(1, 3)) + 1):
        header, crc = encode_header(int(JOURNAL, 16), sequence, last_pos, synced_pos)
        parts = [header]
        for kind, payload in draw(st.lists(records(), max_size=12)):
            if draw(st.integers(0, 9)) == 0:
                epoch, number = epoch + 1, 0
            number += 1
            synced_pos = last_pos if draw(st.booleans()) else synced_pos
            last_pos = position(epoch, number)
            data, crcs = encode([(kind, last_pos, payload)], int(JOURNAL, 16), synced_pos, crc)
            parts.append(data)
            crc = crcs[-1]
        made.append(b"".join(parts))
    return [*made[:-1], made[-1][: len(made[-1]) - draw(st.just(0) | st.integers(0, 300))]]


@given(segments())
def test_M5_many_frames_at_once_fold_to_what_they_fold_to_one_by_one(journal: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / JOURNAL
        directory.mkdir()
        for sequence, data in enumerate(journal, start=1):
            segment_path(directory, sequence).write_bytes(data)
        one_by_one, at_once = Fold(), Fold()
        walked = walk(Files(), directory, one_by_one.add)
        assert walk(Files(), directory, at_once.add, at_once.add_run) == walked
    assert at_once.opens == one_by_one.opens
    assert list(at_once.opens) == list(one_by_one.opens)
    assert at_once.prices == one_by_one.prices
    assert at_once.recent == one_by_one.recent
    assert [one.pos for one in at_once.finished] == [one.pos for one in one_by_one.finished]
    assert all(isinstance(one, Frame) for one in one_by_one.finished)
    debits = debits_after(at_once.finished, 0)
    assert debits == debits_after(one_by_one.finished, 0)
    assert [type(debit) for debit in debits] == [Debit] * len(debits)
    after = position(1, 5)
    assert debits_after(at_once.finished, after) == [debit for debit in debits if debit.pos > after]
