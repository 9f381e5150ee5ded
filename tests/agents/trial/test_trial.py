"""amc-train without W&B: real processes on small real files. Other files test it with the real client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from amc_agents.trial.end_reason import reason_of
from amc_agents.trial.main import NO_WANDB, main
from amc_core.config import FIELDS, ConfigError
from amc_core.data.radioml import DataError
from amc_core.metric_names import FINAL_FACTS, FINAL_METRICS
from amc_core.training.state import Diverged
from amc_sweeps.runs.causes import EXIT_CODES, EndReason

SMALL = {
    "model_type": "resnet10t",
    "image_size": 32,
    "snr_min_db": 10,
    "snr_max_db": 16,
    "batch_size": 64,
    "epochs": 2,
    "epochs_per_cycle": 2,
    "max_lr": 0.003,
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 17 modulations x 4 SNR levels x 10 frames."""
    path = tmp_path_factory.mktemp("data") / "frames.hdf5"
    program = "from amc_core.commands import main; main()"
    arguments = ["synth", str(path), "--frames-per-cell", "10", "--snr", "10:16:2", "--seed", "3"]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
    return path


def _start(tmp_path: Path, flags: Mapping[str, Any]) -> subprocess.Popen[str]:
    arguments = [f"--{name}={value}" for name, value in {"no_wandb": True, **flags}.items()]
    program = "from amc_agents.trial.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, f"--runs_dir={tmp_path}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code and what the trial printed on stderr."""
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def _wait_for_an_epoch(tmp_path: Path) -> None:
    history = tmp_path / "local-1" / "history.jsonl"
    deadline = time.monotonic() + 60
    while not (history.exists() and history.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)


def _read_json(tmp_path: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tmp_path / "local-1" / name).read_text())
    return content


def test_a_completed_trial_writes_history_summary_and_checkpoint_and_exits_with_0(tmp_path: Path, frames: Path) -> None:
    code, err = _finish(_start(tmp_path, {**SMALL, "data": frames}))
    assert code == 0, err
    end = _read_json(tmp_path, "end.json")
    assert (end["end_reason"], end["exit_code"]) == ("completed", 0)
    summary = _read_json(tmp_path, "summary.json")
    rows = [json.loads(line) for line in (tmp_path / "local-1" / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[-1]["best/combined_acc"] == max(row["val/combined_acc"] for row in rows)
    assert summary.keys() - set().union(*rows) == FINAL_METRICS | FINAL_FACTS
    assert summary["end_reason"] == "completed"
    assert summary["test_checkpoint_epoch"] == summary["best_epoch"]
    config = _read_json(tmp_path, "config.json")
    assert (config["n_train"], config["n_val"], config["n_test"]) == (544, 68, 68)
    assert config["max_lr"] == 0.003
    assert (tmp_path / "local-1" / "best.pt").is_file()


def test_a_trial_prints_a_line_an_epoch(tmp_path: Path, frames: Path) -> None:
    out, err = _start(tmp_path, {**SMALL, "data": frames}).communicate(timeout=120)
    starts = ["544 / 68 / 68 frames", "epoch 1/2  lr ", "epoch 2/2  lr ", "test "]
    assert [line.startswith(start) for line, start in zip(out.splitlines(), starts, strict=True)] == [True] * 4, out
    assert "amc-train: completed; results in" in err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--no_wandb", "--epochs=0"], EXIT_CODES[EndReason.CONFIG_REFUSED], "epochs: 0 is not allowed"),
        (["--no_wandb=yes", "--epochs=0"], EXIT_CODES[EndReason.CONFIG_REFUSED], "epochs: 0 is not allowed"),
        (["--no_wandb=perhaps"], 2, "'perhaps' is not a valid boolean"),
    ],
)
def test_no_wandb_may_be_bare_and_is_never_guessed(tmp_path: Path, flags: list[str], code: int, message: str) -> None:
    ended = CliRunner().invoke(main, [*flags, f"--runs_dir={tmp_path}"])
    assert (ended.exit_code, message in ended.stderr) == (code, True)


def test_a_training_goes_on_where_nobody_reads_its_lines(tmp_path: Path, frames: Path) -> None:
    process = _start(tmp_path, {**SMALL, "data": frames})
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert process.wait(timeout=120) == 0
    assert _read_json(tmp_path, "end.json")["end_reason"] == "completed"


def test_sigterm_stops_a_trial_with_a_checkpoint(tmp_path: Path, frames: Path) -> None:
    process = _start(tmp_path, {**SMALL, "data": frames, "epochs": 500, "patience": "null"})
    _wait_for_an_epoch(tmp_path)
    process.send_signal(signal.SIGTERM)
    code, err = _finish(process)
    assert code == 0, err
    assert _read_json(tmp_path, "end.json")["end_reason"] == "stopped"
    assert (tmp_path / "local-1" / "last.pt").is_file()


def test_a_trial_that_was_started_with_sigint_ignored_still_ends_by_it(tmp_path: Path, frames: Path) -> None:
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as "nohup wandb agent ... &" in a script does
    try:
        process = _start(tmp_path, {**SMALL, "data": frames, "epochs": 500, "patience": "null"})
    finally:
        signal.signal(signal.SIGINT, ignored)
    _wait_for_an_epoch(tmp_path)
    process.send_signal(signal.SIGINT)
    code, err = _finish(process)
    assert code == EXIT_CODES[EndReason.INTERRUPTED], err


@pytest.mark.parametrize(
    ("flags", "reason", "message"),
    [
        ({"max_lr": "-1", "modeltype": "resnet18"}, EndReason.CONFIG_REFUSED, "did you mean model_type"),
        ({"data": "nowhere.hdf5"}, EndReason.DATA_ERROR, "nowhere.hdf5"),
        ({"data": "x" * 300}, EndReason.DATA_ERROR, "no such file"),
        ({"label_set": "BPSK,QPKS"}, EndReason.CONFIG_REFUSED, "QPKS (did you mean QPSK?)"),
        ({"init_from": "x" * 300}, EndReason.CONFIG_REFUSED, "no such checkpoint"),
    ],
)
def test_a_refused_trial_says_why(
    tmp_path: Path, frames: Path, flags: dict[str, Any], reason: EndReason, message: str
) -> None:
    code, err = _finish(_start(tmp_path, {"data": frames, **flags}))
    assert (code, _read_json(tmp_path, "end.json")["end_reason"]) == (EXIT_CODES[reason], str(reason))
    assert message in err
    assert "Traceback" not in err


def test_without_any_wandb_the_error_names_the_options_and_nothing_is_trained(tmp_path: Path, frames: Path) -> None:
    code, err = _finish(_start(tmp_path / "runs", {"no_wandb": False, "data": frames}))
    assert code == NO_WANDB == 69
    for option in ("amc-sweep serve", "wandb login", "--base-url", "--no_wandb "):
        assert option in err
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, err = _finish(_start(tmp_path / "file" / "runs", {}))
    assert code == EXIT_CODES[EndReason.ERROR]
    assert "cannot be written (Not a directory): choose another --runs_dir" in err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError(["x"]), EndReason.CONFIG_REFUSED),
        (DataError("x"), EndReason.DATA_ERROR),
        (MemoryError(), EndReason.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), EndReason.OUT_OF_MEMORY),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            EndReason.OUT_OF_MEMORY,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), EndReason.OUT_OF_MEMORY),
        (KeyError("x"), EndReason.ERROR),
    ],
)
def test_every_exception_has_an_end_reason(error: Exception, reason: EndReason) -> None:
    assert reason_of(error) is reason


def test_divergence_and_gpu_memory_have_end_reasons() -> None:
    import torch

    assert reason_of(torch.OutOfMemoryError("x")) is EndReason.OUT_OF_MEMORY
    assert reason_of(Diverged.__new__(Diverged)) is EndReason.DIVERGED


def test_every_end_reason_has_an_exit_code_and_codes_of_failures_differ() -> None:
    assert set(EXIT_CODES) == set(EndReason)
    failures = [code for code in EXIT_CODES.values() if code != 0]
    assert len(set(failures)) == len(failures)


def test_evaluate_is_told_where_it_is(tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["evaluate", "runs/local-1", f"--runs_dir={tmp_path / 'runs'}"])
    assert refused.exit_code == 2
    assert "amc-data evaluate CHECKPOINT --data FILE" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_help_lists_every_field() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(f"--{name}" in shown for name in FIELDS)
