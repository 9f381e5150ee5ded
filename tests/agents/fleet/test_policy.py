"""The fleet's decisions after trials have ended."""

from __future__ import annotations

import signal

import pytest

from amc_agents.fleet.policy import (
    NOTHING_TO_DO,
    PAUSED_TOO_LONG,
    RESTARTS,
    Blame,
    EndedTrial,
    Outcome,
    RunningTrial,
    blame,
    fits_deadline,
    fleet_outcome,
    halt_reason,
    has_room,
    idle_reason,
    quarantine_reason,
    restart_delay_s,
)
from amc_sweeps.runs.causes import CENSORED, ENDED_WELL, FAILURES, Cause

GPUS = ("gpu0", "gpu1", "gpu2", "gpu3")


def ended(
    device: str, cause: Cause = Cause.ERROR, at_s: float = 10.0, lasted_s: float = 2.0, **more: object
) -> EndedTrial:
    return EndedTrial(device, cause, "", at_s - lasted_s, at_s, **more)  # type: ignore[arg-type]


def failures(device: str, number: int, cause: Cause = Cause.ERROR, first_s: float = 5.0) -> list[EndedTrial]:
    return [ended(device, cause, first_s + 5 * k, configuration=f"{device} {first_s} {k}") for k in range(number)]


BUSY = [RunningTrial(gpu, 0.0) for gpu in GPUS[1:]]


# --- one device ----------------------------------------------------------------------------------------------------


def test_a_device_with_three_failures_beside_three_healthy_ones_is_quarantined() -> None:
    assert quarantine_reason("gpu0", failures("gpu0", 2), BUSY, 10) is None
    reason = quarantine_reason("gpu0", failures("gpu0", 3), BUSY, 15)
    assert reason is not None
    assert "3 trials failed (3 x error), each within 2 s" in reason
    assert "0 of 3" in reason


def test_no_device_is_quarantined_if_all_fail_alike() -> None:
    everywhere = [trial for gpu in GPUS for trial in failures(gpu, 5)]
    assert all(quarantine_reason(gpu, everywhere, [], 30) is None for gpu in GPUS)


def test_a_single_device_is_never_quarantined_for_a_streak() -> None:
    assert quarantine_reason("gpu0", failures("gpu0", 20), [], 200) is None


def test_trials_that_have_just_begun_on_other_devices_do_not_count_as_good() -> None:
    assert quarantine_reason("gpu0", failures("gpu0", 3), [RunningTrial(gpu, 14.0) for gpu in GPUS[1:]], 15) is None


def test_a_higher_failure_rate_of_the_others_takes_more_failures_in_a_row() -> None:
    half = [ended("gpu1", Cause.ERROR if k % 2 else Cause.COMPLETED, k, configuration=str(k)) for k in range(20)]
    needed = next(n for n in range(1, 50) if quarantine_reason("gpu0", half + failures("gpu0", n), [], 500))
    assert 7 <= needed <= 9
    good = [ended("gpu1", Cause.COMPLETED, k) for k in range(20)]
    assert next(n for n in range(1, 50) if quarantine_reason("gpu0", good + failures("gpu0", n), [], 500)) == 3


def test_two_bad_devices_of_four_are_both_quarantined() -> None:
    bad = failures("gpu0", 4) + failures("gpu1", 4)
    good = [ended(gpu, Cause.COMPLETED, 20) for gpu in ("gpu2", "gpu3") for _ in range(3)]
    assert quarantine_reason("gpu0", bad + good, [], 40)
    assert quarantine_reason("gpu1", bad + good, [], 40)


@pytest.mark.parametrize("between", sorted(ENDED_WELL | CENSORED))
def test_a_trial_that_did_not_fail_ends_the_streak(between: Cause) -> None:
    row = [*failures("gpu0", 2), ended("gpu0", between, 20), *failures("gpu0", 2, first_s=25)]
    assert quarantine_reason("gpu0", row, BUSY, 40) is None


@pytest.mark.parametrize("cause", [Cause.DIVERGED, Cause.CONFIG_REFUSED, Cause.OUT_OF_MEMORY, Cause.DATA_ERROR])
def test_failures_of_configuration_or_machine_do_not_count_against_a_device(cause: Cause) -> None:
    assert quarantine_reason("gpu0", failures("gpu0", 30, cause), BUSY, 200) is None


def test_out_of_memory_counts_against_a_crowded_device() -> None:
    crowded = [ended("gpu0", Cause.OUT_OF_MEMORY, 5 * k, crowded="70 of 80 GiB in use") for k in range(3)]
    assert quarantine_reason("gpu0", crowded, BUSY, 15)


def test_a_configuration_that_fails_on_two_devices_gets_the_blame() -> None:
    first = [ended("gpu0", configuration="lr: 1"), ended("gpu0", configuration="lr: 2")]
    second = ended("gpu1", configuration="lr: 1")
    assert blame(first[0], [*first, second]) is Blame.CONFIGURATION
    assert blame(first[1], [*first, second]) is Blame.OPEN
    assert blame(first[0], [*first, ended("gpu0", configuration="lr: 1")]) is Blame.OPEN, (
        "two failures on one device leave it open"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_trial_that_a_signal_ended_counts_against_nothing(number: signal.Signals) -> None:
    for code in (-number, 128 + number):
        trials = [ended("gpu0", Cause.KILLED_BY_SIGNAL, 5 * k, exit_code=code) for k in range(5)]
        assert quarantine_reason("gpu0", trials, BUSY, 30) is None


def test_a_reported_fault_quarantines_a_device_at_the_first_failure() -> None:
    fault = "the driver reported XID 79"
    assert fault in str(quarantine_reason("gpu0", [ended("gpu0", device_fault=fault)], [], 10))
    assert quarantine_reason("gpu0", [ended("gpu0", Cause.COMPLETED, device_fault=fault)], [], 10) is None


# --- the whole fleet -----------------------------------------------------------------------------------------------


def test_a_fleet_that_only_fails_is_halted() -> None:
    assert halt_reason(failures("gpu0", 5), ["gpu0"], [], None) is None
    assert halt_reason(failures("gpu0", 6), ["gpu0"], [], None) == "the last 6 trials all failed (6 x error)"
    alike = [trial for trials in zip(*(failures(gpu, 3) for gpu in GPUS), strict=True) for trial in trials]
    assert halt_reason(alike[:-1], GPUS, [], None) is None
    assert "on every device alike" in str(halt_reason(alike, GPUS, [], None))


def test_one_good_trial_among_the_last_keeps_a_fleet_going() -> None:
    trials = [*failures("gpu0", 5), ended("gpu0", Cause.COMPLETED), *failures("gpu0", 5)]
    assert halt_reason(trials, ["gpu0"], [], None) is None


def test_failures_of_a_quarantined_device_do_not_halt_the_others() -> None:
    assert halt_reason(failures("gpu0", 12), GPUS, ["gpu0"], None) is None


def test_max_failures_counts_every_failure_and_nothing_else() -> None:
    trials = [ended("gpu0", cause) for cause in Cause if cause not in FAILURES] + failures("gpu0", 3)
    assert halt_reason(trials, ["gpu0"], [], 4) is None
    assert "--max-failures 3" in str(halt_reason(trials, ["gpu0"], [], 3))
    assert halt_reason(failures("gpu0", 19), ["gpu0"], [], 20) is None, "a limit of 20 allows 19 failures"


def test_a_fleet_without_devices_is_halted() -> None:
    assert halt_reason([], ["gpu0"], ["gpu0"], None) == "no device is left"


@pytest.mark.parametrize(
    ("count", "drawn", "waiting", "room"),
    [(None, 10**6, 8, True), (4, 0, 0, True), (4, 0, 3, True), (4, 0, 4, False), (4, 3, 0, True), (4, 3, 1, False),
     (4, 4, 0, False)],
)  # fmt: skip
def test_one_trial_is_reserved_for_every_waiting_agent(count: int | None, drawn: int, waiting: int, room: bool) -> None:
    assert has_room(count, drawn, waiting) is room


def test_a_trial_must_end_in_time_by_the_median_of_those_that_did_not_fail() -> None:
    trials = [ended("gpu0", Cause.COMPLETED, lasted_s=s) for s in (100, 200, 300)] + failures("gpu0", 9)
    assert fits_deadline(trials, 799, 1000)
    assert not fits_deadline(trials, 800, 1000)
    assert fits_deadline([], 999, 1000), "no trial has ended yet"
    assert not fits_deadline([], 1000, 1000)
    assert fits_deadline(trials, 10**9, None)


def test_agents_that_wait_too_long_give_their_devices_back() -> None:
    assert idle_reason(599, 600, is_paused=False) is None
    assert idle_reason(600, 600, is_paused=False) == "no run was handed out within --idle-limit"
    assert idle_reason(600, 600, is_paused=True) == "the sweep stayed paused for --idle-limit"
    assert idle_reason(10**9, None, is_paused=True) is None
    for reason in (NOTHING_TO_DO, PAUSED_TOO_LONG):
        assert fleet_outcome([reason, reason], None) == Outcome(0, reason)


def test_restarts_of_an_agent_get_slower_and_end() -> None:
    waits = [restart_delay_s(deaths) for deaths in range(1, RESTARTS + 2)]
    assert waits[-1] is None
    assert waits[:3] == [5, 10, 20]
    delays_s = [wait for wait in waits if wait is not None]
    assert delays_s == sorted(delays_s)
    assert 15 * 60 < sum(delays_s) < 40 * 60
