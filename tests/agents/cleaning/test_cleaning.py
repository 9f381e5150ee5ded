"""What amc-sweep clean may remove, and that it never removes the only copy of anything that somebody needs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from embedded_server import EmbeddedServer
from run_folder import checkpoint, run_folder
from tiny_files import Memory, synthetic_file, tiny_trial

from amc_agents.cleaning import run_folders
from amc_agents.cleaning.checkpoint_files import is_checkpoint, is_intact
from amc_agents.cleaning.removable import Kind, Removable, freed_bytes, remove
from amc_agents.cleaning.run_folders import RunAtWandb, Standing, find_folders, removable_checkpoints, standing
from amc_agents.commands import clean, main
from amc_agents.trial.end_and_history import append_row, write_end
from amc_core.files import use_folder
from amc_core.training.loop import train
from amc_sweeps.runs.causes import EndReason
from amc_sweeps.runs.export_file import Export, write

LATER = 10 * 86400  # seconds from now, when the files that a test makes are old
ENDED = RunAtWandb("finished", "sweep", "completed")
PREEMPTED = RunAtWandb("preempted", "sweep", "preempted")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def cleaned(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs the command ten days later, with these runs at W&B, and returns its JSON."""
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("AMC_STATE_DIR", str(tmp_path / "state"))

    def clean_with(known: Mapping[str, RunAtWandb], *arguments: str, code: int = 0) -> Any:
        monkeypatch.setattr(clean, "_read_runs", lambda folders, _choice: dict(known))
        with monkeypatch.context() as patch:
            patch.setattr(clean, "time", lambda: time.time() + LATER)
            result = CliRunner().invoke(main, ["clean", "--runs-dir", str(runs), "--json", *arguments])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return clean_with


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


SMALL = {"history.jsonl", "end.json", "evaluation/epoch_0002.json"}


def test_without_yes_nothing_is_removed(runs: Path, cleaned: Callable[..., Any]) -> None:
    folder = run_folder(runs, "a")
    before = files_in(folder)
    document = cleaned({"a": ENDED})
    assert files_in(folder) == before
    assert (document["removed"], document["bytes"] > 20_000) == (False, True)
    assert [Path(item["path"]).name for item in document["items"]] == [
        "last.pt",
        "best_combined_acc.pt",
        "best_loss.pt",
    ]


def test_an_ended_run_keeps_its_best_checkpoint_and_everything_small(runs: Path, cleaned: Callable[..., Any]) -> None:
    folder = run_folder(runs, "a")
    checkpoint(folder / "before_1" / "last.pt", "a")
    (folder / "mine.pt").write_bytes(b"x")
    shutil.copy(folder / "last.pt", folder / "epoch_5.pt")
    best = (folder / "best.pt").read_bytes()
    document = cleaned({"a": ENDED}, "--yes")
    assert files_in(folder) == {*SMALL, "best.pt", "mine.pt", "epoch_5.pt"}
    assert (folder / "best.pt").read_bytes() == best
    assert all(item["removed"] for item in document["items"])
    assert cleaned({"a": ENDED}, "--yes")["items"] == [], "once is enough"


@pytest.mark.parametrize("state", ["running", "pending", "preempting", "a new word"])
def test_a_run_that_is_alive_is_never_touched(runs: Path, cleaned: Callable[..., Any], state: str) -> None:
    folder = run_folder(runs, "a")
    before = files_in(folder)
    document = cleaned({"a": RunAtWandb(state, None, None)}, "--yes", "--resumable", "--keep-best", "0")
    assert files_in(folder) == before
    assert document["left"] == [{"reason": "alive", "runs": ["a"], "bytes": document["left"][0]["bytes"]}]


def test_a_run_that_can_be_continued_needs_the_option(runs: Path, cleaned: Callable[..., Any]) -> None:
    known = {
        "preempted": PREEMPTED,
        "crashed": RunAtWandb("crashed", None, None),
        "failed": RunAtWandb("failed", None, "error"),
        "interrupted": RunAtWandb("failed", None, "interrupted"),
    }
    folders = [run_folder(runs, run_id) for run_id in known]
    before = [files_in(folder) for folder in folders]
    document = cleaned(known, "--yes", "--keep-best", "0")
    assert [files_in(folder) for folder in folders] == before
    assert [(entry["reason"], entry["runs"]) for entry in document["left"]] == [("can be continued", sorted(known))]
    cleaned(known, "--yes", "--resumable")
    assert all(files_in(folder) == {*SMALL, "best.pt"} for folder in folders)


def test_a_run_that_wandb_does_not_know_is_left_alone(runs: Path, cleaned: Callable[..., Any]) -> None:
    folder = run_folder(runs, "a")
    before = files_in(folder)
    assert cleaned({}, "--yes", "--resumable", "--keep-best", "0")["items"] == []
    assert files_in(folder) == before


def test_a_run_that_changed_lately_is_left_alone(runs: Path, cleaned: Callable[..., Any]) -> None:
    folder = run_folder(runs, "a")
    before = files_in(folder)
    document = cleaned({"a": ENDED}, "--yes", "--older-than", "11d")
    assert files_in(folder) == before
    assert document["left"][0]["reason"] == "changed lately"


def test_a_folder_that_a_trial_uses_is_left_alone(runs: Path, cleaned: Callable[..., Any]) -> None:
    folder = run_folder(runs, "a")
    (folder / ".last.pt.77").write_bytes(b"x")
    before = files_in(folder)
    trial = use_folder(folder)
    assert trial is not None
    document = cleaned({"a": ENDED}, "--yes", code=1)
    assert files_in(folder) == before
    assert "a trial uses it now" in document["problems"][0]
    os.close(trial)
    cleaned({"a": ENDED}, "--yes")
    assert files_in(folder) == {*SMALL, "best.pt"}


def test_a_run_that_is_continued_between_the_look_and_the_removal_is_left_alone(
    runs: Path, cleaned: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder(runs, "a")
    before = files_in(folder)
    answers: Iterator[RunAtWandb] = iter([ENDED, RunAtWandb("running", None, None)])
    original = clean._add_runs

    def look(plan: Any, options: Any, now: float) -> None:
        monkeypatch.setattr(clean, "_read_runs", lambda *_: {"a": next(answers)})
        original(plan, options, now)

    monkeypatch.setattr(clean, "_add_runs", look)
    cleaned({}, "--yes")
    assert files_in(folder) == before
    assert next(answers, None) is None, "it looked twice"


def test_a_run_that_ends_between_the_look_and_the_removal_was_not_shown_and_stays(
    runs: Path, cleaned: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, later = run_folder(runs, "a"), run_folder(runs, "b")
    before = files_in(later)
    states = iter(["running", "finished"])
    original = clean._add_runs

    def look(plan: Any, options: Any, now: float) -> None:
        known = {"a": ENDED, "b": RunAtWandb(next(states), None, None)}
        monkeypatch.setattr(clean, "_read_runs", lambda *_: known)
        original(plan, options, now)

    monkeypatch.setattr(clean, "_add_runs", look)
    cleaned({}, "--yes")
    assert files_in(shown) == {*SMALL, "best.pt"}
    assert files_in(later) == before


def test_a_folder_that_changes_after_the_look_is_left_alone(runs: Path) -> None:
    folder = run_folder(runs, "a")
    (found,) = find_folders(runs)
    items = removable_checkpoints(found)
    os.utime(folder / "last.pt", (time.time() + 5, time.time() + 5))  # the clock of files ticks every 4 ms
    assert "has changed" in run_folders.remove_checkpoints(found, items)[0]
    assert (folder / "last.pt").is_file()


def test_where_the_best_checkpoint_is_damaged_or_missing_the_others_stay(
    runs: Path, cleaned: Callable[..., Any]
) -> None:
    damaged, cut, without, odd = (run_folder(runs, name) for name in ("damaged", "cut", "without", "odd"))
    content = bytearray((damaged / "best.pt").read_bytes())
    content[len(content) // 2] ^= 0xFF
    for name in ("best.pt", "best_combined_acc.pt"):
        (damaged / name).unlink()
    (damaged / "best.pt").write_bytes(content)
    (cut / "best.pt").write_bytes((cut / "best.pt").read_bytes()[:5000])
    for name in ("best.pt", "best_combined_acc.pt", "best_loss.pt"):
        (without / name).unlink()
    for name in ("best.pt", "last.pt"):
        (odd / name).unlink()
    known = dict.fromkeys(("damaged", "cut", "without", "odd"), ENDED)
    document = cleaned(known, "--yes", code=1)
    assert len(document["problems"]) == 2
    assert (damaged / "last.pt").is_file()
    assert (cut / "last.pt").is_file()
    assert files_in(without) == {*SMALL, "last.pt"}, "the only checkpoint that there is"
    assert files_in(odd) == {*SMALL, "best_combined_acc.pt", "best_loss.pt"}, "which of them is the best is not known"


def test_a_kill_between_two_removals_leaves_the_checkpoint_that_stays(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for killed_after in range(4):
        folder = run_folder(runs, f"r{killed_after}")
        (found,) = [found for found in find_folders(runs) if found.path == folder]
        items = removable_checkpoints(found)
        left = [killed_after]

        def killed(item: Removable, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            remove(item)

        with monkeypatch.context() as patch:
            patch.setattr(run_folders, "remove", killed)
            try:
                run_folders.remove_checkpoints(found, items)
            except KeyboardInterrupt:
                assert killed_after < len(items)
        assert is_intact(folder / "best.pt")


def test_only_the_best_runs_of_a_sweep_keep_a_checkpoint_if_asked(runs: Path, cleaned: Callable[..., Any]) -> None:
    known = {f"r{number}": RunAtWandb("finished", "s" if number < 4 else None, "completed") for number in range(5)}
    for number, run_id in enumerate(known):
        run_folder(runs, run_id, best=number / 10)
    cleaned(known, "--keep-best", "2", "--yes")
    assert [(runs / run_id / "best.pt").is_file() for run_id in known] == [False, False, True, True, True]
    assert all(files_in(runs / run_id) >= SMALL for run_id in known)


def test_foreign_folders_files_and_links_are_left_alone(
    runs: Path, tmp_path: Path, cleaned: Callable[..., Any]
) -> None:
    elsewhere = run_folder(tmp_path / "elsewhere", "linked")
    (runs / "linked").symlink_to(elsewhere)
    foreign = runs / "foreign"
    foreign.mkdir()
    (foreign / "last.pt").write_bytes(b"not ours")
    (foreign / "best.pt").write_bytes(b"not ours")
    append_row(foreign, {"epoch": 1})
    write_end(foreign, EndReason.COMPLETED, run="local/demo/foreign")
    other = run_folder(runs, "other")
    checkpoint(other / "last.pt", "somebody")
    (other / "best_loss.pt").unlink()
    (other / "best_loss.pt").symlink_to(checkpoint(tmp_path / "mine.pt", "other"))
    (runs / "notes.txt").write_text("mine")
    before = [files_in(folder) for folder in (elsewhere, foreign)]
    cleaned(dict.fromkeys(("linked", "foreign", "other"), ENDED), "--yes", "--keep-best", "0", "--resumable")
    assert [files_in(folder) for folder in (elsewhere, foreign)] == before
    assert {"last.pt", "best_loss.pt"} <= files_in(other), "of another run, and a link"
    assert (runs / "notes.txt").is_file()


def test_what_killed_saves_and_downloads_left_goes_from_every_folder(runs: Path, cleaned: Callable[..., Any]) -> None:
    folder = run_folder(runs, "a")
    (folder / ".last.pt.4711").write_bytes(bytes(1000))
    (folder / ".fetch-x1y2").mkdir()
    (folder / ".fetch-x1y2" / "last.pt").write_bytes(bytes(1000))
    (folder / ".mine.4711").write_text("x")
    (runs / "local-1").mkdir()
    (runs / "local-1" / ".best_loss.pt.12").write_bytes(bytes(1000))
    document = cleaned({"a": RunAtWandb("running", None, None)}, "--yes")
    assert {item["kind"] for item in document["items"]} == {"leftover"}
    assert len(document["items"]) == 3
    assert not (folder / ".fetch-x1y2").exists()
    assert (folder / ".mine.4711").exists()


def test_copies_in_the_clients_cache_go_and_foreign_ones_stay(tmp_path: Path, cleaned: Callable[..., Any]) -> None:
    cache = tmp_path / "cache" / "artifacts" / "obj" / "md5"
    ours = checkpoint(cache / "ab" / "cdef", "a")
    theirs = cache / "ab" / "0123"
    theirs.write_bytes(b"a model of another project")
    with zipfile.ZipFile(cache / "ab" / "4567", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weights": 1}))
    assert [item["path"] for item in cleaned({}, "--older-than", "11d")["items"]] == []
    assert [item["path"] for item in cleaned({}, "--yes")["items"]] == [str(ours)]
    assert files_in(cache) == {"ab/0123", "ab/4567"}


def test_without_an_answer_of_wandb_the_folders_stay_and_the_rest_is_cleaned(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder_name in (("WANDB_CACHE_DIR", "cache"), ("XDG_DATA_HOME", "share"), ("AMC_STATE_DIR", "state")):
        monkeypatch.setenv(name, str(tmp_path / folder_name))
    folder = run_folder(runs, "a")
    before = files_in(folder)
    ours = checkpoint(tmp_path / "cache" / "artifacts" / "obj" / "md5" / "ab" / "cdef", "a")
    result = CliRunner().invoke(
        main, ["clean", "--runs-dir", str(runs), "--older-than", "0s", "--base-url", "nonsense", "--yes"]
    )
    assert result.exit_code == 1, result.output
    assert "W&B does not say which of these runs have ended" in result.output
    assert files_in(folder) == before
    assert not ours.exists()


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("finished", None, Standing.ENDED),
        ("killed", None, Standing.ENDED),
        ("failed", "diverged", Standing.ENDED),
        ("failed", "out_of_memory", Standing.RESUMABLE),
        ("failed", None, Standing.RESUMABLE),
        ("crashed", "completed", Standing.RESUMABLE),
        ("preempted", None, Standing.RESUMABLE),
        ("preempting", None, Standing.ALIVE),
        ("running", "completed", Standing.ALIVE),
        ("", None, Standing.ALIVE),
    ],
)
def test_the_state_decides_and_an_unknown_one_counts_as_alive(
    state: str, reason: str | None, expected: Standing
) -> None:
    assert standing(RunAtWandb(state, None, reason)) is expected


def test_only_files_without_another_name_give_room(tmp_path: Path) -> None:
    first = tmp_path / "a"
    first.write_bytes(os.urandom(40_960))
    (tmp_path / "b").hardlink_to(first)
    one, both = [Removable(Kind.BLOB, first)], [Removable(Kind.BLOB, tmp_path / name) for name in "ab"]
    assert freed_bytes(one) == 0
    assert freed_bytes(both) == freed_bytes([*both, Removable(Kind.BLOB, tmp_path / "gone")]) >= 40_960


def test_checkpoints_of_a_real_trial_are_recognised(tmp_path: Path) -> None:
    data = synthetic_file(tmp_path, levels_db=(20,), frames_per_cell=10)
    train(tiny_trial(data, epochs=1), run_dir=tmp_path / "gem", record=Memory())
    for name in ("last.pt", "best.pt", "best_loss.pt", "best_combined_acc.pt"):
        assert is_checkpoint(tmp_path / "gem" / name, "gem")
        assert is_intact(tmp_path / "gem" / name)
        assert not is_checkpoint(tmp_path / "gem" / name, "other")
    (tmp_path / "cut").write_bytes((tmp_path / "gem" / "last.pt").read_bytes()[:-100])
    assert not is_checkpoint(tmp_path / "cut")
    assert not is_checkpoint(data)
    assert not is_checkpoint(tmp_path)


@pytest.mark.client
def test_states_come_from_a_real_server(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    states = {"a": "finished", "b": "crashed", "c": "failed"}
    exported = [
        {"id": run_id, "state": state, "summary": {"end_reason": "diverged"} if run_id == "c" else {}}
        for run_id, state in states.items()
    ]
    for run_id in (*states, "unknown"):
        run_folder(runs, run_id, reason=None if run_id == "b" else EndReason.COMPLETED)
    (tmp_path / "runs.yaml").write_text(write(Export("demo", (), tuple(exported))))
    with EmbeddedServer(tmp_path / "data") as server:
        environment = server.environment(AMC_STATE_DIR=str(tmp_path / "data.state"))
        subprocess.run(
            ["amc-sweep", "import", str(tmp_path / "runs.yaml")],
            env={**server.process_environment(), **environment},
            check=True,
            capture_output=True,
        )
        for name in ("WANDB_BASE_URL", "WANDB_API_KEY"):
            monkeypatch.setenv(name, environment[name])
        try:
            arguments = ["clean", "--runs-dir", str(runs), "--data", str(server.data), "--older-than", "0s", "--yes"]
            result = CliRunner().invoke(main, [*arguments, "--json"])
        finally:
            wandb.teardown()
    document = json.loads(result.stdout)
    assert result.exit_code == 0, result.output
    removed = {item["run"] for item in document["items"] if item["removed"]}
    assert removed == {"a", "c"}
    assert {entry["reason"]: entry["runs"] for entry in document["left"]} == {
        "can be continued": ["b"],
        "unknown to this W&B": ["unknown"],
    }


@pytest.mark.parametrize(("folder", "words"), [("nowhere", "no such folder"), ("x" * 300, "no such folder")])
def test_a_mistyped_folder_is_refused_and_not_called_clean(tmp_path: Path, folder: str, words: str) -> None:
    result = CliRunner().invoke(main, ["clean", "--runs-dir", str(tmp_path / folder), "--yes"])
    assert result.exit_code == 2
    assert words in result.stderr
