"""No two exchanges ever have one id, and ids sort by time (M5: an exchange is known by its id alone)."""

import re

from farebox.base.ids import ExchangeIds


def test_M5_ids_are_unique_and_sort_by_time_and_number() -> None:
    ids, others = ExchangeIds(), ExchangeIds()
    made = [ids.new(1_760_000_000_000 + number // 1000) for number in range(3 * 4096)]
    assert made == sorted(set(made))
    assert not set(made) & {others.new(1_760_000_000_000) for _ in range(4096)}
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    assert [int(one[:12], 16) for one in made[999:1001]] == [1_760_000_000_000, 1_760_000_000_001]
    assert [int(one[22:], 16) for one in made] == list(range(1, len(made) + 1))


def test_an_id_of_an_earlier_time_is_still_a_new_one() -> None:
    ids = ExchangeIds()
    made = [ids.new(now_ms) for now_ms in (5, 4, 5, 5)]
    assert len(set(made)) == 4
    assert [int(one[:12], 16) for one in made] == [5, 4, 5, 5]
