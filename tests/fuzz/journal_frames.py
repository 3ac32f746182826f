"""Mutates real journal segments at random: the reader must give a prefix or name damage, nothing else.

Usage: python tests/fuzz/journal_frames.py SECONDS [SEED]. Prints the seed; exits 1 with it at the first wrong
answer.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "python")]

from farebox.base import frames as kinds  # noqa: E402
from farebox.base.errors import JournalDamagedError  # noqa: E402
from farebox.journal.frames import Frame  # noqa: E402
from journal.rig import Rig, ended, records  # noqa: E402 - the path comes first


def written(root: Path, rng: random.Random) -> Rig:
    """A journal of a few epochs, some of it synced."""
    rig = Rig(root)
    for _ in range(rng.randint(1, 3)):
        rig.begin()
        for index in range(rng.randint(0, 12)):
            rig.append(
                rng.choice([kinds.SETTLE, kinds.VOID]),
                f"{index}",
                ended(f"{index}", "z" * rng.randint(0, 300)),
            )
            rig.turn()
            if rng.random() < 0.3:
                rig.sync_round()
        rig.stop()
    return rig


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` after one random accident."""
    at = rng.randint(0, len(data))
    length = rng.randint(0, 600)
    return rng.choice(
        [
            data[:at],
            data[:at] + rng.randbytes(length) + data[at + length :],
            data[:at] + bytes(length) + data[at + length :],
            data[:at] + data[at + length :],
            data[:at] + data[max(0, at - length) : at] + data[at:],
            data + rng.randbytes(length),
            data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
        ]
    )


def wrong_answer(rig: Rig, whole: list[Frame], rng: random.Random) -> str:
    """What the reader did wrong with one mutation; empty when it did nothing wrong."""
    path = rng.choice(sorted(rig.directory.glob("*.segment")))
    data = path.read_bytes()
    path.write_bytes(mutated(data, rng))
    try:
        found = records(rig.directory)
    except JournalDamagedError:
        return ""
    except Exception as error:  # noqa: BLE001 - any other error is the finding
        return repr(error)
    finally:
        path.write_bytes(data)
    return "" if found == whole[: len(found)] else f"{len(found)} records that are no prefix"


def main() -> int:
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    sys.stdout.write(f"journal_frames: seed {seed}\n")
    rng = random.Random(seed)
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as root:
            rig = written(Path(root), rng)
            whole = rig.records()
            for _ in range(200):
                rounds += 1
                problem = wrong_answer(rig, whole, rng)
                if problem:
                    sys.stdout.write(f"journal_frames: seed {seed}, round {rounds}: {problem}\n")
                    return 1
    sys.stdout.write(f"journal_frames: {rounds} mutations, no wrong answer\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
