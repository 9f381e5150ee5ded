"""A preempted trial of amc-train at a W&B server that is not ours, and that refuses each request once as too many."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from embedded_server import EmbeddedServer
from limiting_proxy import LimitingProxy
from plain_wandb import KEY, PlainWandb
from preempted_trials import EPOCHS, Machine, frames, run_of

from amc_agents.trial.end_and_history import read_end
from amc_sweeps.runs.causes import EndReason


@pytest.mark.client
@pytest.mark.compatibility("amc-train", "preemption", "checkpoints as artifacts", "resume RUN", "rate limits")
def test_it_continues_on_another_machine_from_its_artifact_and_loses_no_row(tmp_path: Path) -> None:
    data = frames(tmp_path)
    with (
        EmbeddedServer(tmp_path / "data") as server,
        PlainWandb(server) as plain,
        LimitingProxy(plain.base_url, lambda *_: True, retry_after="1") as proxy,
    ):
        first, second = (Machine(name, tmp_path, server, data) for name in ("gpu-1", "gpu-2"))
        for machine in (first, second):
            machine.env |= {"WANDB_BASE_URL": proxy.base_url, "WANDB_API_KEY": KEY}
        trial = first.train("gem")
        first.wait_for_epoch("gem", 1, trial)
        trial.send_signal(signal.SIGUSR1)
        assert trial.wait(timeout=90) == 75, first.output()
        end = read_end(first.runs / "gem")
        assert end is not None
        assert end.reason is EndReason.PREEMPTED
        assert run_of(server, "gem")["state"] == "preempted"

        resumed = second.amc_sweep("resume", "demo/gem")
        assert resumed.returncode == 0, resumed.stderr
        assert "from W&B's artifact checkpoint-gem" in resumed.stderr
        run = run_of(server, "gem")
        refused = b"".join(body for _, _, body in proxy.refused)
    assert (run["state"], run["summary"]["end_reason"]) == ("finished", "completed")
    assert [row["_step"] for row in run["history"]] == list(range(EPOCHS))
    for name in (b"UpsertBucket", b"CreateArtifact", b"RunResumeStatus", b"wandb-history", b"complete"):
        assert name in refused, name
    assert "/healthz" in plain.refused
