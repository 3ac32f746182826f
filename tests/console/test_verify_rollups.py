"""verify compares the series of the rollups with each other, and names the one that somebody changed."""

import sqlite3

from console.traffic import fill
from farebox.store.sqlite import SQLiteStore
from farebox.writer.verify import verify


async def test_rollups_that_somebody_changed_are_a_difference(tmp_path):
    path = tmp_path / "store.db"
    store = SQLiteStore(path)
    await store.open()
    await fill(store, 9)
    report = await verify(store, None)
    assert report.differences_total == 0
    with sqlite3.connect(path) as connection:
        connection.execute(
            """UPDATE rollups SET charge_pico = charge_pico + 1 WHERE series = 'models/day' AND start_ms =
               (SELECT min(start_ms) FROM rollups WHERE series = 'models/day')"""
        )
    connection.close()
    report = await verify(store, None)
    assert report.differences_total > 0
    assert all(text.startswith("rollups models/day of ") for text in report.differences)
    assert all("statistics of models/day" in remedy for remedy in report.repairs)
    assert report.delta_pico == 0
    await store.close()
