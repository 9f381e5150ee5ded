"""The cause of a trial's end, from the evidence of this machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from amc_agents.fleet.trial_evidence import NO_RECORD, MemoryKills, WandbRecord, classify_end, last_lines, read_log
from amc_sweeps.runs.causes import Cause

TRACE = 'Traceback (most recent call last):\n  File "train.py", line 3\n'


@pytest.mark.parametrize(
    ("exit_code", "log", "cause"),
    [
        (0, "", Cause.COMPLETED),
        (80, "", Cause.DIVERGED),
        (81, "", Cause.OUT_OF_MEMORY),
        (75, "", Cause.PREEMPTED),
        (78, "", Cause.CONFIG_REFUSED),
        (130, "", Cause.INTERRUPTED),
        (1, TRACE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", Cause.OUT_OF_MEMORY),
        (1, TRACE + "ValueError: shapes", Cause.ERROR),
        (1, TRACE + "FileNotFoundError: [Errno 2] No such file or directory: 'x.h5'", Cause.DATA_ERROR),
        (1, TRACE + "ModuleNotFoundError: No module named 'timm'", Cause.ENVIRONMENT_ERROR),
        (-11, "", Cause.KILLED_BY_SIGNAL),
        (-9, "epoch 3", Cause.KILLED_BY_SIGNAL),
        (None, "epoch 3", Cause.UNKNOWN),
        (None, TRACE + "ValueError: shapes", Cause.ERROR),
    ],
)
def test_the_cause_follows_from_exit_code_and_log(exit_code: int | None, log: str, cause: Cause) -> None:
    assert classify_end(exit_code, log, run="abc", memory_kill=None).cause is cause


def test_only_a_sigkill_by_the_kernel_s_memory_killer_is_out_of_memory() -> None:
    line = "kernel: Memory cgroup out of memory: Killed process 7 (python) total-vm:9kB"
    verdict = classify_end(-9, "epoch 3", run="abc", memory_kill=line)
    assert verdict.cause is Cause.OUT_OF_MEMORY
    assert "Killed process 7" in verdict.because
    assert classify_end(1, TRACE + "ValueError: x", run="abc", memory_kill=line).cause is Cause.ERROR, (
        "it ended by itself"
    )


def test_an_agent_s_log_shows_that_w_and_b_asked_for_the_stop() -> None:
    stop = "2026-01-01 00:00:00,0 - wandb.wandb_agent - INFO - Stop: abc"
    assert classify_end(-15, stop, run="abc", memory_kill=None).cause is Cause.STOPPED
    assert classify_end(-15, stop, run="other", memory_kill=None).cause is Cause.KILLED_BY_SIGNAL
    leave = "2026-01-01 00:00:00,0 - wandb.wandb_agent - INFO - Received exit command. Killing runs and quitting."
    assert classify_end(-9, leave, run="abc", memory_kill=None).cause is Cause.STOPPED


def test_a_good_end_after_the_fleet_s_request_is_stopped_without_an_end_reason() -> None:
    assert classify_end(0, "", run="abc", memory_kill=None, fleet_is_ending=True).cause is Cause.STOPPED
    done = WandbRecord(state="finished", end_reason="completed")
    assert classify_end(0, "", run="abc", memory_kill=None, fleet_is_ending=True, record=done).cause is Cause.COMPLETED
    assert classify_end(130, "", run="abc", memory_kill=None, fleet_is_ending=True).cause is Cause.INTERRUPTED


def test_w_and_b_s_record_corrects_the_cause() -> None:
    hyperband = WandbRecord(state="killed", stop_recorded=True, stop_reason="hyperband")
    assert classify_end(0, "", run="abc", memory_kill=None, record=hyperband).cause is Cause.EARLY_STOPPED
    patience = WandbRecord(state="finished", end_reason="patience", stop_recorded=False)
    assert classify_end(0, "", run="abc", memory_kill=None, record=patience).cause is Cause.PATIENCE
    assert (
        classify_end(None, "", run="abc", memory_kill=None, record=WandbRecord(state="finished")).cause
        is Cause.COMPLETED
    )
    assert not NO_RECORD.is_final
    assert not WandbRecord(state="running").is_final


@pytest.mark.parametrize(
    ("groups", "file"),
    [("0::/job/step\n", "job/step/memory.events"), ("4:memory:/job\n0::/\n", "memory/job/memory.oom_control"),
     ("0::/of/the/host\n", "memory.events")],
)  # fmt: skip
def test_kills_are_counted_in_cgroups_of_both_versions_and_in_containers(
    tmp_path: Path, groups: str, file: str
) -> None:
    counter = tmp_path / "fs" / file
    counter.parent.mkdir(parents=True)
    counter.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "cgroup").write_text(groups)
    kills = MemoryKills(tmp_path / "cgroup", tmp_path / "fs")
    assert kills.count() == 2
    assert kills.since(2, 10**9, time.monotonic()) is None
    assert "out of memory: Killed 1 in this cgroup" in str(kills.since(1, 10**9, time.monotonic()))


def test_a_machine_without_counters_is_no_error(tmp_path: Path) -> None:
    kills = MemoryKills(tmp_path / "none", tmp_path)
    assert kills.count() is None
    assert kills.since(None, 10**9, time.monotonic()) is None


def test_a_log_is_read_log_where_the_trial_began(tmp_path: Path) -> None:
    log = tmp_path / "gpu0.log"
    log.write_text("before\nnow\n\n")
    assert read_log(log, 7) == "now\n\n"
    assert read_log(tmp_path / "none", 0) == ""
    assert last_lines("a\nb\n\n") == "b"
    assert last_lines("") == "no output"
