"""Scores, accuracy by SNR and attractors of confusions with known answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from amc_core.metric_names import EPOCH_METRICS, OCCASIONAL_METRICS, detail_metrics
from amc_core.training.evaluation import Evaluation, attractors, scores
from amc_core.training.evaluation_files import EARLIER_EPOCHS, epoch_stem, keep_epochs, read_epoch, write_evaluation

LEVELS_DB = tuple(range(0, 32, 2))
N = 400  # frames of a true level


def blurred(width: float) -> npt.NDArray[np.int64]:
    """Return a confusion of every level with its neighbours, as any estimator has it."""
    level = np.arange(len(LEVELS_DB))
    weight = np.exp(-(((level[:, None] - level[None, :]) / width) ** 2))
    return np.round(N * weight / weight.sum(axis=1, keepdims=True)).astype(np.int64)


def planted(snr_db: int, shares: dict[int, float]) -> npt.NDArray[np.int64]:
    """Return that confusion, with shares of some true levels moved to one guess."""
    confusion = blurred(0.8)
    target = LEVELS_DB.index(snr_db)
    for true_db, share in shares.items():
        row = confusion[LEVELS_DB.index(true_db)]
        moved = np.round(row * share).astype(np.int64)
        row -= moved
        row[target] += moved.sum()
    return confusion


def test_a_planted_attractor_is_found_with_what_it_swallows() -> None:
    # The 2025 research log's balmy-waterfall-174: 24, 28 and 30 dB are read as 26 dB.
    result = attractors(planted(26, {24: 0.7, 28: 0.7, 30: 0.7}), LEVELS_DB)
    assert [attractor.snr_db for attractor in result] == [26]
    assert set(result[0].swallowed) == {24, 28, 30}
    assert all(0.6 < share < 0.95 for share in result[0].swallowed.values())
    confusion = planted(26, {24: 0.7, 28: 0.7, 30: 0.7})
    column = LEVELS_DB.index(26)
    others = confusion[:, column].sum() - confusion[column, column]
    assert result[0].share == pytest.approx(others / (confusion.sum() - confusion[column].sum()))
    assert result[0].guessed == pytest.approx(confusion[:, column].sum() / confusion.sum())


def test_an_attractor_of_most_of_the_range_is_found() -> None:
    result = attractors(planted(28, dict.fromkeys(range(8, 28, 2), 0.6)), LEVELS_DB)
    assert result[0].snr_db == 28
    assert set(result[0].swallowed) == set(range(8, 28, 2))


def test_two_attractors_are_found_the_stronger_one_first() -> None:
    # The 2025 research log's peach-violet-189: 26 dB first, 12 dB second.
    confusion = planted(26, {22: 0.8, 24: 0.8, 28: 0.8, 30: 0.8})
    second = planted(12, {10: 0.7, 14: 0.7})
    rows = [LEVELS_DB.index(db) for db in (10, 14)]
    confusion[rows] = second[rows]
    assert [attractor.snr_db for attractor in attractors(confusion, LEVELS_DB)] == [26, 12]


@pytest.mark.parametrize("width", [0.1, 0.8, 2.0, 6.0])
def test_confusion_with_neighbours_is_no_attractor(width: float) -> None:
    assert attractors(blurred(width), LEVELS_DB) == ()


def test_the_top_level_read_as_its_neighbour_is_no_attractor() -> None:
    assert attractors(planted(28, {30: 0.8}), LEVELS_DB) == ()


@pytest.mark.parametrize("n_frames", [4, 50, 2000])
def test_guessing_at_random_is_no_attractor(n_frames: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        confusion = rng.multinomial(n_frames, np.full(16, 1 / 16), size=16)
        assert attractors(confusion, LEVELS_DB) == ()


def test_a_constant_guess_is_an_attractor_of_every_level() -> None:
    confusion = np.zeros((16, 16), dtype=np.int64)
    confusion[:, 3] = N
    result = attractors(confusion, LEVELS_DB)
    assert (result[0].snr_db, result[0].share, len(result[0].swallowed)) == (6, 1.0, 15)


def test_scores_are_precision_recall_and_f1_by_hand() -> None:
    first, second, third = scores(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert (first.n_frames, first.precision, first.recall) == (4, 3 / 5, 3 / 4)
    assert first.f1 == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    assert second.f1 == pytest.approx(8 / 11)
    assert (third.precision, third.recall, third.f1) == (0, 0, 0)


def small() -> Evaluation:
    """Two ASKs and a PSK at 0 and 10 dB, ten frames a cell."""
    joint = np.zeros((3, 2, 3, 2), dtype=np.int64)
    joint[0, 0, 0, 0], joint[0, 0, 1, 0] = 6, 4  # 4ASK at 0 dB: four read as 8ASK
    joint[0, 1, 0, 1], joint[0, 1, 0, 0] = 9, 1  # at 10 dB: one read as 0 dB
    joint[1, 0, 1, 0] = 10
    joint[1, 1, 2, 1] = 10  # 8ASK at 10 dB: all read as BPSK
    joint[2, 0, 2, 0] = 10
    joint[2, 1, 2, 1] = 10
    return Evaluation(
        modulations=("4ASK", "8ASK", "BPSK"), levels_db=(0, 10), joint=joint, loss=0.5, loss_mod=0.0, loss_snr=0.0
    )


def test_accuracies_come_from_one_joint_confusion() -> None:
    result = small()
    assert result.n_frames == 60
    assert result.combined_acc == pytest.approx((6 + 9 + 10 + 0 + 10 + 10) / 60)
    assert result.mod_acc == pytest.approx((6 + 10 + 10 + 0 + 10 + 10) / 60)
    assert result.snr_acc == pytest.approx(59 / 60)
    assert result.snr_mae_db == pytest.approx(10 / 60)
    assert result.combined_acc_by_snr.tolist() == pytest.approx([26 / 30, 19 / 30])
    assert result.mod_acc_by_snr.tolist() == pytest.approx([26 / 30, 20 / 30])


def test_the_accuracy_of_publications_is_the_mean_over_the_levels_that_have_frames() -> None:
    joint = np.zeros((2, 3, 2, 3), dtype=np.int64)
    joint[0, 0, 0, 0] = joint[1, 0, 0, 0] = 90  # 0 dB: half of 180 frames
    joint[1, 1, 1, 0] = 10  # 10 dB: all of 10 frames; 20 dB has none
    result = Evaluation(
        modulations=("4ASK", "BPSK"), levels_db=(0, 10, 20), joint=joint, loss=0.0, loss_mod=0.0, loss_snr=0.0
    )
    assert result.mod_acc == pytest.approx(100 / 190)
    assert (result.mod_acc_mean, result.mod_acc_peak) == (0.75, 1.0)
    assert (result.summary()["mod_acc_mean"], result.to_mapping()["mod_acc_peak"]) == (0.75, 1.0)


def test_a_wrong_modulation_of_the_same_family_is_right_for_the_family() -> None:
    ask, psk = small().family_scores
    assert (ask.name, ask.n_frames, ask.recall, ask.precision) == ("ASK", 40, 30 / 40, 1.0)
    assert (psk.name, psk.n_frames, psk.recall, psk.precision) == ("PSK", 20, 1.0, 20 / 30)


def test_the_detail_has_exactly_the_names_that_are_declared() -> None:
    result = small().detail()
    assert result.keys() == detail_metrics(("4ASK", "8ASK", "BPSK"), (0, 10)) | {"attractor/share"}
    assert result["acc/snr/10"] == pytest.approx(19 / 30)
    assert result["attractor/share"] == 0.0
    assert "attractor/share" in EPOCH_METRICS
    swallowing = np.zeros((1, 16, 1, 16), dtype=np.int64)
    swallowing[0, :, 0, :] = planted(26, {24: 0.7, 28: 0.7, 30: 0.7})
    metrics = Evaluation(
        modulations=("BPSK",), levels_db=LEVELS_DB, joint=swallowing, loss=0.0, loss_mod=0.0, loss_snr=0.0
    ).detail()
    assert metrics["attractor/snr_db"] == 26
    assert metrics["attractor/share"] > 0.1
    assert "attractor/snr_db" in OCCASIONAL_METRICS


def test_everything_can_be_written_as_json() -> None:
    content = json.loads(json.dumps(small().to_mapping()))
    assert content["snr_confusion"] == [[30, 0], [1, 29]]
    assert content["by_snr"][1]["snr_db"] == 10
    assert content["by_modulation"][2]["name"] == "BPSK"


def test_attractors_and_single_values_are_tables_too(tmp_path: Path) -> None:
    swallowing = np.zeros((1, 16, 1, 16), dtype=np.int64)
    swallowing[0, :, 0, :] = planted(26, {24: 0.7, 28: 0.7, 30: 0.7})
    result = Evaluation(
        modulations=("BPSK",), levels_db=LEVELS_DB, joint=swallowing, loss=0.25, loss_mod=0.0, loss_snr=0.0
    )
    folder = write_evaluation(
        tmp_path, "epoch_0003", result, facts={"gap/combined_acc": 0.125, "checkpoint": "best.pt"}
    )
    rows = list(csv.DictReader((folder / "epoch_0003_attractors.csv").read_text().splitlines()))
    assert [(row["attractor_db"], row["true_db"]) for row in rows] == [("26", "24"), ("26", "28"), ("26", "30")]
    assert [float(row["share"]) for row in rows] == list(result.attractors[0].swallowed.values())
    values = dict(csv.reader((folder / "epoch_0003_metrics.csv").read_text().splitlines()))
    assert (values["gap/combined_acc"], values["checkpoint"], values["loss"]) == ("0.125", "best.pt", "0.25")
    assert float(values["snr_mae_db"]) == result.snr_mae_db
    content = json.loads((folder / "epoch_0003.json").read_text())
    assert values.keys() - {"metric"} == {name for name, value in content.items() if not isinstance(value, list)}
    write_evaluation(tmp_path, "test", small(), facts={})
    assert (folder / "test_attractors.csv").read_text() == "attractor_db,true_db,share\n"


def written_epochs(run_dir: Path, epochs: Iterable[int], *, kept: Callable[[int], set[int]]) -> dict[int, bytes]:
    """Write the validations of epochs as a trial does; return what each file held."""
    contents = {}
    for epoch in epochs:
        folder = write_evaluation(run_dir, epoch_stem(epoch), small(), facts={"epoch": epoch, "val/loss": float("nan")})
        contents[epoch] = (folder / f"{epoch_stem(epoch)}.json").read_bytes()
        keep_epochs(run_dir, kept(epoch))
    return contents


def same(text: bytes | None, other: bytes) -> bool:
    return text is not None and json.dumps(json.loads(text)) == json.dumps(json.loads(other))


def test_the_files_of_a_run_do_not_grow_with_its_epochs_and_no_validation_is_lost(tmp_path: Path) -> None:
    contents = written_epochs(tmp_path, range(1, 31), kept=lambda epoch: {epoch, min(epoch, 3), min(epoch, 7)})
    names = sorted(path.name for path in (tmp_path / "evaluation").iterdir())
    assert len(names) == 3 * 6 + 1
    assert [name for name in names if name.endswith(".json")] == [
        f"epoch_00{epoch}.json" for epoch in ("03", "07", "30")
    ]
    assert all(same(read_epoch(tmp_path, epoch), text) for epoch, text in contents.items())
    assert read_epoch(tmp_path, 31) is None
    assert read_epoch(tmp_path / "elsewhere", 1) is None


def test_a_kill_while_validations_are_moved_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = written_epochs(tmp_path, range(1, 4), kept=lambda _: {1, 2, 3})
    unlink, left = Path.unlink, [0]

    def killed(path: Path, missing_ok: bool = False) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        unlink(path, missing_ok=missing_ok)

    for deletions in range(12):
        left[0] = deletions
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                keep_epochs(tmp_path, {3})
        assert all(same(read_epoch(tmp_path, epoch), text) for epoch, text in contents.items()), deletions
        written_epochs(tmp_path, (1, 2), kept=lambda _: {1, 2, 3})
    with (tmp_path / EARLIER_EPOCHS).open("ab") as file:
        file.write(b'["epoch":2]\n"epoch\\":2"\n[{"epoch":2}]\n' + b"[" * 100_000 + b'"epoch":2\n{"epoch":2,"cut o')
    keep_epochs(tmp_path, {3})
    assert all(same(read_epoch(tmp_path, epoch), text) for epoch, text in contents.items())


def test_an_epoch_that_is_computed_again_and_files_of_other_names_are_kept(tmp_path: Path) -> None:
    written_epochs(tmp_path, (1, 2), kept=lambda epoch: {epoch})
    folder = write_evaluation(tmp_path, epoch_stem(1), small(), facts={"epoch": 1, "again": True})
    others = ["epoch_0001_mine.csv", "epoch_1.json", "epoch_0009.json", "test.json"]
    for name in others:
        (folder / name).write_text("[1")
    keep_epochs(tmp_path, {2})
    again = read_epoch(tmp_path, 1)
    assert again is not None
    assert json.loads(again)["again"]
    assert all((folder / name).is_file() for name in others), "of another program, or damaged"
