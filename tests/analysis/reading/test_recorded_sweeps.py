"""The sweeps of the 2025 research log as files: they can be read and imported, and their hidden gems are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from embedded_server import EmbeddedServer

from amc_agents.commands import main as amc_sweep
from amc_analysis.analyse import rank_runs
from amc_analysis.cli import main as amc_analyze
from amc_analysis.reading.export_file import records_of
from amc_sweeps.runs import export_file
from amc_sweeps.runs.claims import Claim, ClaimError, ClaimKind, read_recorded
from amc_sweeps.runs.records import SweepRecord

FOLDER = Path(__file__).parents[3] / "sweeps" / "recorded"
FILES = sorted(FOLDER.glob("*.yaml"))
SWEEPS = ["4yfw48ad", "94fqx0gz", "bapdavm5", "o7pjrbw1"]


def recorded(name: str) -> SweepRecord:
    """Return the record in a file."""
    (record,) = records_of(export_file.read((FOLDER / f"{name}.yaml").read_text()), read_at=datetime.now(UTC))
    return record


def claims_of(record: SweepRecord, kind: ClaimKind, parameter: str | None = None) -> list[Claim]:
    """Return the claims of a kind, about one parameter or all."""
    return [claim for claim in record.claims if claim.kind is kind and parameter in (None, claim.parameter)]


def test_every_sweep_of_the_log_has_a_file_and_its_single_runs_have_one() -> None:
    assert [file.stem for file in FILES] == [*SWEEPS, "single_runs"]


@pytest.mark.parametrize(
    ("name", "gem", "peak", "beats"),
    [
        ("94fqx0gz", "cafrw8gz", 0.4715, "yor9hoxe"),
        ("bapdavm5", "stilted-sweep-12", 0.4729, "trim-sweep-7"),
        ("o7pjrbw1", "gallant-sweep-11", 0.4725, "fanciful-sweep-3"),
    ],
)
def test_a_crashed_run_with_a_better_peak_than_all_completed_runs_is_a_hidden_gem(
    name: str, gem: str, peak: float, beats: str
) -> None:
    analysed = rank_runs(recorded(name))
    assert [entry.run.run_id for entry in analysed.gems] == [gem]
    assert analysed.gems[0].peak == peak
    assert analysed.best_ended_well is not None
    assert analysed.best_ended_well.run.run_id == beats


@pytest.mark.parametrize(
    ("name", "documented", "total"), [("4yfw48ad", 2, 20), ("o7pjrbw1", 3, 12), ("bapdavm5", 4, 12)]
)
def test_the_number_of_runs_on_record_and_of_all_runs_is_known(name: str, documented: int, total: int) -> None:
    record = recorded(name)
    assert (len(record.runs), record.runs_total) == (documented, total)


def test_the_sizes_of_bapdavm5_agree_with_its_averages() -> None:
    """Every grouping of the 12 runs has the same sum, and the same 7 crashes."""
    record = recorded("bapdavm5")
    for parameter in ("max_lr", "snr_layer", "curriculum"):
        numbers = [claim.numbers for claim in claims_of(record, ClaimKind.GROUP, parameter)]
        assert sum(group["n"] for group in numbers) == 12
        assert sum(group["failures"] for group in numbers) == 7
        assert math.isclose(sum(group["n"] * group["mean"] for group in numbers), 5.0435, abs_tol=5e-4)
        for group in numbers:
            assert math.isclose(group["failures"] / group["n"], group["failure_rate"], abs_tol=0.006)


def test_one_of_the_two_listed_values_of_o7pjrbw1_was_never_run() -> None:
    record = recorded("o7pjrbw1")
    (group,) = claims_of(record, ClaimKind.GROUP, "max_lr")
    assert group.values == (1e-3,)
    assert group.numbers["n"] == record.runs_total
    assert {run.config["max_lr"] for run in record.runs} == {1e-3}
    assert record.config["parameters"]["max_lr"] == {"values": [7e-4, 1e-3]}
    assert {claim.values for claim in claims_of(record, ClaimKind.RECOMMENDATION, "max_lr")} == {(7e-4,), ()}


def test_the_claim_about_the_curriculum_uses_test_values() -> None:
    (claim,) = claims_of(recorded("94fqx0gz"), ClaimKind.COMPARISON)
    assert (claim.metric, claim.statistic) == ("test/combined_acc", "max")
    assert math.isclose(claim.numbers["first"] - claim.numbers["second"], claim.numbers["difference"])


def test_all_splits_of_one_label_set_have_the_same_number_of_frames() -> None:
    record = recorded("single_runs")
    totals = {
        run.name: sum(run.config[part] for part in ("n_train", "n_val", "n_test"))
        for run in record.runs
        if "n_test" in run.config
    }
    assert totals.pop("snowy-valley-151") == 1_810_432
    assert set(totals.values()) == {272 * 4096}
    assert {"vocal-glade-228", "playful-puddle-227"} <= totals.keys()


def test_claims_in_the_notes_of_a_run_name_the_run() -> None:
    record = recorded("single_runs")
    assert record.kind == "project"
    assert ("0ecx68oy",) in {claim.runs for claim in record.claims}
    parents = {run.run_id: run.config["parent_run"] for run in record.runs if "parent_run" in run.config}
    assert parents == {"3yk3v97s": "zswhk3e4", "radiant-aardvark-165": "mtgtl1fa", "0ecx68oy": "7h3jifit"}
    assert set(parents.values()) <= {run.run_id for run in record.runs}


def test_noise_is_estimated_only_from_whole_curves() -> None:
    noise = {entry.run.run_id: entry.noise_sd for entry in rank_runs(recorded("single_runs")).ranked}
    assert noise["lmp0536i"] == pytest.approx(0.0091, abs=1e-4)
    assert noise["0ecx68oy"] is not None
    assert noise["7h3jifit"] is None, "five of 66 epochs are on record"
    assert noise["32opsq3y"] is None


# --- descriptions


@pytest.mark.parametrize("text", [None, "", "an ordinary description", "we recorded: nothing"])
def test_an_ordinary_text_has_no_claims(text: str | None) -> None:
    assert read_recorded(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "recorded: 3",
        "recorded: {claims: [{statement: a}]}",
        "recorded: {claims: [{kind: hearsay, statement: a}]}",
        "recorded: {claims: [{kind: group, statement: a, colour: red}]}",
        "recorded: {claims: [{kind: group, statement: a, derived: [n]}]}",
        "recorded: [",
    ],
)
def test_a_faulty_record_is_an_error(text: str) -> None:
    with pytest.raises(ClaimError, match="cannot be read"):
        read_recorded(text)


def test_a_description_that_only_begins_like_a_record_is_an_ordinary_text() -> None:
    sweep = {"id": "s", "config": {"metric": {"name": "acc"}}, "description": "recorded: on a Monday"}
    (record,) = records_of(export_file.Export("p", (sweep,), ()), read_at=datetime.now(UTC))
    assert (record.claims, record.description) == ((), "recorded: on a Monday")


# --- import into a server, then analyse


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("recorded") / "data") as running:
        yield running


@pytest.fixture
def imported_files(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server.base_url)
    monkeypatch.setenv("WANDB_API_KEY", server.key)
    for file in FILES:
        result = CliRunner().invoke(amc_sweep, ["import", str(file)])
        assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("imported_files")
@pytest.mark.parametrize("arguments", [*([name] for name in SWEEPS), ["--project", "research-log"]])
def test_an_imported_sweep_is_analysed_like_its_file(arguments: list[str]) -> None:
    name = arguments[0] if len(arguments) == 1 else "single_runs"
    imported = CliRunner().invoke(amc_analyze, [*arguments, "--json"])
    assert imported.exit_code == 0, imported.output
    from_file = CliRunner().invoke(amc_analyze, ["--from", str(FOLDER / f"{name}.yaml"), "--json"])
    on_server, in_file = json.loads(imported.stdout), json.loads(from_file.stdout)
    assert on_server["sweep"]["id"] == in_file["sweep"]["id"]
    # A run that was alive when the log was written is running in the file and over on the server, with one conclusion.
    fields = ("run_id", "name", "peak", "peak_epoch", "last", "test", "epochs", "config", "cause")
    assert [{field: run[field] for field in fields} for run in on_server["runs"]] == [
        {field: run[field] for field in fields} for run in in_file["runs"]
    ]
    file = export_file.read((FOLDER / f"{name}.yaml").read_text())
    alive = {run["id"] for run in file.runs if export_file.was_alive(run)}
    assert {run["cause"] for run in on_server["runs"] if run["run_id"] in alive} <= {"unknown"}


@pytest.mark.usefixtures("imported_files")
def test_an_export_has_no_fact_that_the_imported_file_lacks(tmp_path: Path) -> None:
    for name, reference in (("94fqx0gz", "94fqx0gz"), ("single_runs", "research-log")):
        original = export_file.read((FOLDER / f"{name}.yaml").read_text())
        result = CliRunner().invoke(amc_sweep, ["export", reference, str(tmp_path / f"{name}.yaml")])
        assert result.exit_code == 0, result.output
        exported = export_file.read((tmp_path / f"{name}.yaml").read_text())
        runs = {run["id"]: run for run in exported.runs}
        for run in original.runs:
            assert export_file.differing_fields(runs[run["id"]], export_file.with_steps(run)) == []
            assert runs[run["id"]].keys() == run.keys()
        sweeps = {sweep["id"]: sweep for sweep in exported.sweeps}
        assert all(sweeps[sweep["id"]].keys() == sweep.keys() for sweep in original.sweeps)


@pytest.mark.usefixtures("imported_files")
def test_the_public_api_filters_imported_runs_by_time_and_reads_single_metrics() -> None:
    import wandb

    api = wandb.Api()
    total = len(api.runs("local/research-log"))
    assert len(api.runs("local/research-log", filters={"created_at": {"$gt": "2020-01-01"}})) == total > 0
    assert len(api.runs("local/research-log", filters={"created_at": {"$lt": "2020-01-01"}})) == 0
    file = export_file.read((FOLDER / "single_runs.yaml").read_text())
    logged = next(run for run in file.runs if run.get("history") and "epoch" in run["history"][0])
    run = api.run(f"local/research-log/{logged['id']}")
    epochs = [row["epoch"] for row in logged["history"]]
    assert [row["epoch"] for row in run.history(keys=["epoch"], pandas=False)] == epochs
    assert [row["epoch"] for row in run.scan_history(keys=["epoch"])] == epochs


def test_an_export_into_a_missing_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        amc_sweep, ["export", "nonesuch", str(tmp_path / "missing" / "x.yaml"), "--base-url", "http://127.0.0.1:9"]
    )
    assert result.exit_code == 2
    assert "its folder does not exist" in result.output


@pytest.mark.usefixtures("imported_files")
def test_the_server_returns_claims_unchanged(server: EmbeddedServer) -> None:
    from amc_analysis.reading.reader import read
    from amc_analysis.reading.sources import Selection
    from amc_analysis.reading.whole_histories import BulkSource

    source = BulkSource(server.base_url, server.key)
    for name in SWEEPS:
        record = read(source, Selection(sweep_id=name))
        assert (record.claims, record.runs_total) == (recorded(name).claims, recorded(name).runs_total)
        assert record.claims
    record = read(source, Selection(project="research-log"))
    assert sorted(map(repr, record.claims)) == sorted(map(repr, recorded("single_runs").claims))


@pytest.mark.usefixtures("imported_files")
def test_two_sweeps_are_compared_with_a_warning_for_incomplete_records() -> None:
    result = CliRunner().invoke(amc_analyze, ["94fqx0gz", "bapdavm5"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "47.15% cafrw8gz 47.29% stilted-sweep-12" in text
    assert "bapdavm5: only 4 of 12 runs are on record." in text
    assert "better by chance alone (3 in 94fqx0gz, 12 in bapdavm5)" in text
    document = json.loads(CliRunner().invoke(amc_analyze, ["94fqx0gz", "bapdavm5", "--json"]).stdout)
    assert [side["best"] for side in document["sides"]] == ["cafrw8gz", "stilted-sweep-12"]
    assert [sweep["sweep"]["id"] for sweep in document["sweeps"]] == ["94fqx0gz", "bapdavm5"]
    lines = CliRunner().invoke(amc_analyze, ["94fqx0gz", "bapdavm5", "--csv", "-"]).stdout.splitlines()
    assert lines[0].startswith("sweep,rank,run_id")
    assert len(lines) == 1 + 3 + 4
    refusal = CliRunner().invoke(amc_analyze, ["94fqx0gz", "o7pjrbw1", "--next", "x.yaml"]).output
    assert "--next follows one sweep: give one, or --html FILE for the comparison" in refusal


@pytest.mark.usefixtures("imported_files")
def test_records_can_be_saved_in_a_file_and_read_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = tmp_path / "saved.parquet"
    online = CliRunner().invoke(amc_analyze, ["bapdavm5", "o7pjrbw1", "--json", "--save", str(saved)])
    assert online.exit_code == 0, online.output
    monkeypatch.delenv("WANDB_BASE_URL")
    monkeypatch.delenv("WANDB_API_KEY")
    from_file = CliRunner().invoke(amc_analyze, ["--from", str(saved), "--json"])
    offline = CliRunner().invoke(amc_analyze, ["bapdavm5", "o7pjrbw1", "--json", "--offline"])
    assert json.loads(from_file.stdout) == json.loads(online.stdout) == json.loads(offline.stdout)
    assert "as it was read on" in offline.stderr
    never = CliRunner().invoke(amc_analyze, ["94fqx0gz-not", "--offline"])
    assert never.exit_code == 2
    assert "was never read on this machine" in never.output
