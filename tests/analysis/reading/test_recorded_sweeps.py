"""What the 2025 run log documents, as files: readable, importable, and the gems in them found."""

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
from amc_analysis.cli import main as amc_analyze
from amc_analysis.reading.export_file import records_of
from amc_analysis.runs.findings import analyse
from amc_sweeps.runs import export_file
from amc_sweeps.runs.claims import Claim, ClaimError, ClaimKind, read_recorded
from amc_sweeps.runs.records import SweepRecord

FOLDER = Path(__file__).parents[3] / "sweeps" / "recorded"
FILES = sorted(FOLDER.glob("*.yaml"))
SWEEPS = ["4yfw48ad", "94fqx0gz", "bapdavm5", "o7pjrbw1"]


def recorded(name: str) -> SweepRecord:
    """Return what a file holds."""
    (record,) = records_of(export_file.read((FOLDER / f"{name}.yaml").read_text()), read_at=datetime.now(UTC))
    return record


def claims_of(record: SweepRecord, kind: ClaimKind, parameter: str | None = None) -> list[Claim]:
    """Return some of the claims."""
    return [claim for claim in record.claims if claim.kind is kind and parameter in (None, claim.parameter)]


def test_there_is_a_file_for_every_sweep_of_the_log_and_one_for_its_single_runs() -> None:
    assert [file.stem for file in FILES] == [*SWEEPS, "single_runs"]


@pytest.mark.parametrize(
    ("name", "gem", "peak", "beats"),
    [
        ("94fqx0gz", "cafrw8gz", 0.4715, "yor9hoxe"),
        ("bapdavm5", "stilted-sweep-12", 0.4729, "trim-sweep-7"),
        ("o7pjrbw1", "gallant-sweep-11", 0.4725, "fanciful-sweep-3"),
    ],
)
def test_the_crashed_run_that_beats_all_completed_ones_is_a_hidden_gem(
    name: str, gem: str, peak: float, beats: str
) -> None:
    findings = analyse(recorded(name))
    assert [entry.run.run_id for entry in findings.gems] == [gem]
    assert findings.gems[0].peak == peak
    assert findings.best_whole is not None
    assert findings.best_whole.run.run_id == beats


@pytest.mark.parametrize(
    ("name", "documented", "total"), [("4yfw48ad", 2, 20), ("o7pjrbw1", 3, 12), ("bapdavm5", 4, 12)]
)
def test_how_many_of_how_many_runs_are_documented_is_known(name: str, documented: int, total: int) -> None:
    record = recorded(name)
    assert (len(record.runs), record.runs_total) == (documented, total)


def test_the_sizes_of_bapdavm5_agree_with_its_averages() -> None:
    """Every way to group the 12 runs gives the same sum, and the same 7 crashes."""
    record = recorded("bapdavm5")
    for parameter in ("max_lr", "snr_layer", "curriculum"):
        numbers = [claim.numbers for claim in claims_of(record, ClaimKind.GROUP, parameter)]
        assert sum(group["n"] for group in numbers) == 12
        assert sum(group["failures"] for group in numbers) == 7
        assert math.isclose(sum(group["n"] * group["mean"] for group in numbers), 5.0435, abs_tol=5e-4)
        for group in numbers:
            assert math.isclose(group["failures"] / group["n"], group["failure_rate"], abs_tol=0.006)


def test_in_o7pjrbw1_one_of_two_listed_values_was_never_run() -> None:
    record = recorded("o7pjrbw1")
    (group,) = claims_of(record, ClaimKind.GROUP, "max_lr")
    assert group.values == (1e-3,)
    assert group.numbers["n"] == record.runs_total
    assert {run.config["max_lr"] for run in record.runs} == {1e-3}
    assert record.config["parameters"]["max_lr"] == {"values": [7e-4, 1e-3]}
    assert {claim.values for claim in claims_of(record, ClaimKind.RECOMMENDATION, "max_lr")} == {(7e-4,), ()}


def test_the_claim_of_the_curriculum_rests_on_test_values() -> None:
    (claim,) = claims_of(recorded("94fqx0gz"), ClaimKind.COMPARISON)
    assert (claim.metric, claim.statistic) == ("test/combined_acc", "max")
    assert math.isclose(claim.numbers["first"] - claim.numbers["second"], claim.numbers["difference"])


def test_the_splits_of_one_label_set_hold_the_same_frames() -> None:
    record = recorded("single_runs")
    totals = {
        run.name: sum(run.config[part] for part in ("n_train", "n_val", "n_test"))
        for run in record.runs
        if "n_test" in run.config
    }
    assert totals.pop("snowy-valley-151") == 1_810_432
    assert set(totals.values()) == {272 * 4096}
    assert {"vocal-glade-228", "playful-puddle-227"} <= totals.keys()


def test_what_runs_of_no_sweep_claim_is_known_to_be_theirs() -> None:
    record = recorded("single_runs")
    assert record.kind == "project"
    assert ("0ecx68oy",) in {claim.runs for claim in record.claims}
    parents = {run.run_id: run.config["parent_run"] for run in record.runs if "parent_run" in run.config}
    assert parents == {"3yk3v97s": "zswhk3e4", "radiant-aardvark-165": "mtgtl1fa", "0ecx68oy": "7h3jifit"}
    assert set(parents.values()) <= {run.run_id for run in record.runs}


def test_noise_is_estimated_from_whole_curves_only() -> None:
    noise = {entry.run.run_id: entry.noise_sd for entry in analyse(recorded("single_runs")).ranked}
    assert noise["lmp0536i"] == pytest.approx(0.0079, abs=1e-4)
    assert noise["0ecx68oy"] is not None
    assert noise["7h3jifit"] is None, "five of 66 epochs are on record"
    assert noise["32opsq3y"] is None


# --- descriptions


@pytest.mark.parametrize("text", [None, "", "an ordinary description", "we recorded: nothing"])
def test_an_ordinary_text_claims_nothing(text: str | None) -> None:
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
def test_a_faulty_record_is_said_so(text: str) -> None:
    with pytest.raises(ClaimError, match="cannot be read"):
        read_recorded(text)


def test_a_description_that_only_begins_like_a_record_hinders_nothing() -> None:
    sweep = {"id": "s", "config": {"metric": {"name": "acc"}}, "description": "recorded: on a Monday"}
    (record,) = records_of(export_file.Export("p", (sweep,), ()), read_at=datetime.now(UTC))
    assert (record.claims, record.description) == ((), "recorded: on a Monday")


# --- a newcomer's way: import, then analyse


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("recorded") / "data") as running:
        yield running


@pytest.fixture
def pointed(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server.base_url)
    monkeypatch.setenv("WANDB_API_KEY", server.key)
    for file in FILES:
        result = CliRunner().invoke(amc_sweep, ["import", str(file)])
        assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("pointed")
@pytest.mark.parametrize("arguments", [*([name] for name in SWEEPS), ["--project", "research-log"]])
def test_an_imported_record_is_analysed_like_its_file(arguments: list[str]) -> None:
    name = arguments[0] if len(arguments) == 1 else "single_runs"
    imported = CliRunner().invoke(amc_analyze, [*arguments, "--json"])
    assert imported.exit_code == 0, imported.output
    from_file = CliRunner().invoke(amc_analyze, ["--from", str(FOLDER / f"{name}.yaml"), "--json"])
    there, here = json.loads(imported.stdout), json.loads(from_file.stdout)
    assert there["sweep"]["id"] == here["sweep"]["id"]
    # Who ran when the log was written is running in the file and over in a copy of it; the conclusion is the same.
    kept = ("run_id", "name", "peak", "peak_epoch", "last", "test", "epochs", "config", "cause")
    assert [{field: run[field] for field in kept} for run in there["runs"]] == [
        {field: run[field] for field in kept} for run in here["runs"]
    ]
    file = export_file.read((FOLDER / f"{name}.yaml").read_text())
    alive = {run["id"] for run in file.runs if export_file.was_alive(run)}
    assert {run["cause"] for run in there["runs"] if run["run_id"] in alive} <= {"unknown"}


@pytest.mark.usefixtures("pointed")
def test_what_a_record_does_not_say_its_export_does_not_say_either(tmp_path: Path) -> None:
    for name, what in (("94fqx0gz", "94fqx0gz"), ("single_runs", "research-log")):
        given = export_file.read((FOLDER / f"{name}.yaml").read_text())
        result = CliRunner().invoke(amc_sweep, ["export", what, str(tmp_path / f"{name}.yaml")])
        assert result.exit_code == 0, result.output
        told = export_file.read((tmp_path / f"{name}.yaml").read_text())
        runs = {run["id"]: run for run in told.runs}
        for run in given.runs:
            assert export_file.differences(runs[run["id"]], export_file.with_steps(run)) == []
            assert runs[run["id"]].keys() == run.keys()
        sweeps = {sweep["id"]: sweep for sweep in told.sweeps}
        assert all(sweeps[sweep["id"]].keys() == sweep.keys() for sweep in given.sweeps)


@pytest.mark.usefixtures("pointed")
def test_the_public_api_filters_by_time_and_reads_single_metrics_of_an_import() -> None:
    import wandb

    api = wandb.Api()
    every = len(api.runs("local/research-log"))
    assert len(api.runs("local/research-log", filters={"created_at": {"$gt": "2020-01-01"}})) == every > 0
    assert len(api.runs("local/research-log", filters={"created_at": {"$lt": "2020-01-01"}})) == 0
    file = export_file.read((FOLDER / "single_runs.yaml").read_text())
    logged = next(run for run in file.runs if run.get("history") and "epoch" in run["history"][0])
    run = api.run(f"local/research-log/{logged['id']}")
    epochs = [row["epoch"] for row in logged["history"]]
    assert [row["epoch"] for row in run.history(keys=["epoch"], pandas=False)] == epochs
    assert [row["epoch"] for row in run.scan_history(keys=["epoch"])] == epochs


def test_an_export_into_no_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        amc_sweep, ["export", "nonesuch", str(tmp_path / "missing" / "x.yaml"), "--base-url", "http://127.0.0.1:9"]
    )
    assert result.exit_code == 2
    assert "there is no folder" in result.output


@pytest.mark.usefixtures("pointed")
def test_claims_come_through_the_server_unchanged(server: EmbeddedServer) -> None:
    from amc_analysis.reading.bulk import BulkSource
    from amc_analysis.reading.reader import read
    from amc_analysis.reading.sources import Selection

    source = BulkSource(server.base_url, server.key)
    for name in SWEEPS:
        there = read(source, Selection(sweep_id=name))
        assert (there.claims, there.runs_total) == (recorded(name).claims, recorded(name).runs_total)
        assert there.claims
    there = read(source, Selection(project="research-log"))
    assert sorted(map(repr, there.claims)) == sorted(map(repr, recorded("single_runs").claims))


@pytest.mark.usefixtures("pointed")
def test_two_sweeps_are_compared_and_what_must_not_be_is_said() -> None:
    result = CliRunner().invoke(amc_analyze, ["94fqx0gz", "bapdavm5"])
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    assert "47.15% cafrw8gz 47.29% stilted-sweep-12" in told
    assert "Of bapdavm5 4 of 12 runs are on record." in told
    assert "better by chance alone (3 in 94fqx0gz, 12 in bapdavm5)" in told
    document = json.loads(CliRunner().invoke(amc_analyze, ["94fqx0gz", "bapdavm5", "--json"]).stdout)
    assert [side["best"] for side in document["sides"]] == ["cafrw8gz", "stilted-sweep-12"]
    assert [sweep["sweep"]["id"] for sweep in document["sweeps"]] == ["94fqx0gz", "bapdavm5"]
    lines = CliRunner().invoke(amc_analyze, ["94fqx0gz", "bapdavm5", "--csv", "-"]).stdout.splitlines()
    assert lines[0].startswith("sweep,rank,run_id")
    assert len(lines) == 1 + 3 + 4
    assert (
        "--html shows one sweep" in CliRunner().invoke(amc_analyze, ["94fqx0gz", "o7pjrbw1", "--html", "x.html"]).output
    )


@pytest.mark.usefixtures("pointed")
def test_what_was_read_can_be_kept_in_a_file_and_shown_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept.parquet"
    online = CliRunner().invoke(amc_analyze, ["bapdavm5", "o7pjrbw1", "--json", "--save", str(kept)])
    assert online.exit_code == 0, online.output
    monkeypatch.delenv("WANDB_BASE_URL")
    monkeypatch.delenv("WANDB_API_KEY")
    again = CliRunner().invoke(amc_analyze, ["--from", str(kept), "--json"])
    offline = CliRunner().invoke(amc_analyze, ["bapdavm5", "o7pjrbw1", "--json", "--offline"])
    assert json.loads(again.stdout) == json.loads(online.stdout) == json.loads(offline.stdout)
    assert "as it was read on" in offline.stderr
    never = CliRunner().invoke(amc_analyze, ["94fqx0gz-not", "--offline"])
    assert never.exit_code == 2
    assert "was never read on this machine" in never.output
