"""The protocol holds in random histories, and each planted hole of the catalogue is caught (M1 to M6)."""

import os

import pytest

from farebox.base.errors import InvariantBrokenError
from model.parts import BrokenError
from model.world import run

HISTORIES = int(os.environ.get("FAREBOX_MODEL_HISTORIES", "400"))
STEPS = 120

PLANTED = {
    "01_a_lost_journal_comes_back_under_its_id": {1},
    "02_one_id_has_two_owners": {2},
    "03_a_failed_record_is_passed_by_the_mark": {3},
    "04_a_record_is_applied_from_the_page_cache": {4},
    "05_a_row_is_there_and_its_money_is_not": {5},
    "06_a_dead_lease_pays": {6},
    "07_two_rows_of_one_payment_share_an_id": {7},
    "09_a_duplicate_is_taken_for_success_without_comparing": {4, 9},
    "10_a_return_lands_after_its_fence": {10},
    "11_a_hold_takes_what_a_return_carries_away": {11},
    "12_worker_and_writer_both_end_an_exchange": {12},
    "13_recovery_reads_lease_and_applied_apart": {13},
    "15_a_transfer_crashes_between_debit_and_credit": {15},
    "16_leased_money_is_refunded": {16},
    "16_claimed_money_is_granted": {160},
    "17_a_purchase_revives_expired_money": {17},
    "18_an_expired_lot_is_held_anew": {18},
    "20_sent_is_recorded_after_the_send": {20},
    "24_a_return_does_not_wait_for_the_sync": {24},
    "48_the_late_path_leaves_op_alone": {48},
    "49_each_delivery_chooses_its_rows": {49},
    "50_rows_of_one_event_are_won_apart": {50},
    "51_a_claim_blocks_its_own_collector": {51},
    "51_a_claim_on_a_lot_blocks_its_whole_pool": {151},
    "51_a_dead_collectors_claim_never_ends": {251},
    "52_a_fence_does_not_take_the_entry_over": {52},
    "53_a_disabled_user_cannot_be_credited": {53},
    "54_a_quarantined_hold_is_handed_out_again": {54},
    "56_a_lease_is_abandoned_from_a_stale_read": {56},
    "58_an_unknown_commit_is_applied_again": {58},
}


@pytest.mark.parametrize("block", range(4))
def test_M1_M2_M3_M4_M5_M6_hold_in_random_histories(block: int) -> None:
    for seed in range(block, HISTORIES, 4):
        try:
            run(seed, STEPS)
        except (BrokenError, InvariantBrokenError) as error:
            pytest.fail(f"history {seed}: {error}")


@pytest.mark.parametrize("holes", PLANTED.values(), ids=[f"hole_{name}" for name in PLANTED])
def test_the_model_catches(holes: set[int]) -> None:
    for seed in range(1500):
        try:
            run(seed, STEPS, frozenset(holes))
        except (BrokenError, InvariantBrokenError):
            return
    pytest.fail("1500 histories did not notice")
