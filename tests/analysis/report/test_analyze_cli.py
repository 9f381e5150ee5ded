"""The command amc-analyze: its refusals, its imports, and its report of a real sweep."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from sweep_records import completed, sweep

from amc_agents.preflight.check_sweep import check_sweep
from amc_analysis.analyse import analyse
from amc_analysis.cli import main
from amc_analysis.report.comparison import compare, comparison_json
from amc_analysis.report.json_and_csv import RUN_FIELDS, SCHEMA_VERSION, to_json


def test_help_imports_no_heavy_library() -> None:
    program = (
        "import sys\nfrom amc_analysis.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'wandb', 'pandas', 'timm', 'optuna'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_help_documents_every_field_of_the_tables() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for name, meaning in RUN_FIELDS.items():
        assert name in text
        assert meaning in text
    assert "Examples:" in text


def test_ctrl_c_ends_with_code_130_and_no_half_written_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("amc_analysis.analyse.add_effects", interrupted)
    page = tmp_path / "page.html"
    ended = CliRunner().invoke(main, ["--from", "sweeps/recorded/94fqx0gz.yaml", "--html", str(page)])
    assert ended.exit_code == 130
    assert "interrupted" in ended.stderr
    assert not page.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to read: give a SWEEP"),
        (["94fqx0gz", "--json", "--csv", "-"], "--json and --csv - all print to standard output"),
        (["94fqx0gz", "--markdown", "-", "--next", "-"], "--markdown - and --next - all print to standard output"),
        (["94fqx0gz", "--save", "-"], "a Parquet file cannot be printed"),
        (["94fqx0gz", "--top", "-1"], "0 for all"),
        (["94fqx0gz", "--goal", "upwards"], "'upwards' is not one of 'maximize', 'minimize'"),
        (["94fqx0gz", "--html", "no/such/folder/a.html"], "its folder does not exist"),
        (["94fqx0gz", "--markdown", "."], "it is a folder"),
        (["94fqx0gz", "--next", "no/such/folder/next.yaml"], "its folder does not exist"),
        (["94fqx0gz", "--csv", "a", "--next", "./a"], "a is given twice"),
        (["--from", "setup.cfg", "--save", "setup.cfg"], "setup.cfg is given twice"),
        (["94fqx0gz", "--html", "x" * 300], "File name too long"),
        (["94fqx0gz", "--save", "x" * 300 + "/a.parquet"], "its folder does not exist"),
        (["94fqx0gz", "--base-url", "http://["], "is not an address"),
        (["a/b/c/d"], "does not name a sweep"),
        (["--runs"], "give the ids of runs after --runs"),
        (["--runs", "abc"], "no W&B to talk to"),
        (["--runs", "p/abc", "q/abc"], "of several projects"),
        (["--runs", "https://wandb.ai/me/amc/sweeps/abc"], "is the page of a sweep; a run is needed"),
        (["94fqx0gz", "--offline", "--no-cache"], "give only one of them"),
        (["94fqx0gz", "--offline"], "was never read on this machine"),
        (["94fqx0gz", "--from", "setup.cfg"], "give no sweeps or runs with it"),
        (["--from", "setup.cfg"], "neither a file of --save nor one of amc-sweep export"),
        (["94fqx0gz", "--save", "no/such/folder/a.parquet"], "its folder does not exist"),
        (["http://a/e/p/sweeps/x", "http://b/e/p/sweeps/x"], "on several servers"),
        (["94fqx0gz"], "no W&B to talk to"),
    ],
)
def test_unusable_arguments_are_refused_with_code_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output


# --- a real sweep: the real client, the real server, runs with three different ends

CREATE = """
import wandb
print("ID", wandb.sweep({
    "method": "random", "program": "train.py", "metric": {"name": "val/acc", "goal": "maximize"},
    "parameters": {"lr": {"values": [0.1, 0.2]}, "epochs": {"value": 1200}},
}, project="elsewhere"))
"""

# A training script that does not use this toolkit.
FOREIGN_TRIAL = """
import math, sys, time
import wandb
way = sys.argv[1]
with wandb.init(config={"lr": 0.1, "epochs": 1200}) as run:
    if way == "completes":  # its peak is one row of 1200, which a sampled history would miss
        for epoch in range(1, 1201):
            run.log({"epoch": epoch, "val/acc": 0.55 if epoch == 777 else 0.3})
        run.summary["test/acc"] = 0.2
    elif way == "diverges":
        for epoch, value in enumerate([0.2, 0.25, math.nan], start=1):
            run.log({"epoch": epoch, "val/acc": value})
        raise ValueError("loss is nan")
    else:
        for epoch, value in enumerate([0.4, 0.6, 0.5], start=1):
            run.log({"epoch": epoch, "val/acc": value})
        print("LOGGED", flush=True)
        time.sleep(600)
"""

# The command with a shorter time limit, after which a silent run counts as lost: a test does not wait five minutes.
SHORT_LIMIT = "import amc_sweeps.runs.causes as c; c.STALE_AFTER_S = 2.0; from amc_analysis.cli import main; main()"


@dataclass(frozen=True)
class RealSweep:
    """A sweep on an embedded server, and the command to analyse it."""

    sweep_id: str
    server: EmbeddedServer
    folder: Path

    def analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SHORT_LIMIT, *arguments]
        environment = self.server.environment()
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)


def wait_for_history(server: EmbeddedServer, run_id: str, rows: int) -> None:
    """Wait until the server has a run's rows: a killed trial loses the rows that it has not sent."""
    document = 'query R($run: String!) { project(name: "elsewhere", entityName: "local") { run(name: $run) {'

    def has_rows() -> bool:
        node = server.graphql(document + " historyLineCount } } }", run=run_id)["project"]["run"]
        return node is not None and node["historyLineCount"] >= rows

    wait_until(has_rows, f"{run_id} has {rows} rows")


@pytest.fixture(scope="module")
def real_sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSweep]:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "train.py").write_text(FOREIGN_TRIAL)
    settings = {f"WANDB_{name}": str(folder / name.lower()) for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR")}
    settings |= {"HOME": str(folder), "NETRC": str(folder / ".netrc"), "WANDB_SILENT": "true"}
    settings |= {"WANDB_DIR": str(folder), "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
    with EmbeddedServer(folder / "data") as server:
        environment = {**server.environment(), **settings}
        created = subprocess.run(
            [sys.executable, "-c", CREATE], env=environment, cwd=folder, capture_output=True, text=True, check=True
        )
        sweep_id = next(line.split()[1] for line in created.stdout.splitlines() if line.startswith("ID"))
        environment |= {"WANDB_SWEEP_ID": sweep_id, "WANDB_PROJECT": "elsewhere"}
        trials = {
            way: subprocess.Popen(
                [sys.executable, "train.py", way],
                env={**environment, "WANDB_RUN_ID": way},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for way in ("vanishes", "diverges", "completes")
        }
        vanishing = trials["vanishes"]
        assert vanishing.stdout is not None
        assert any("LOGGED" in line for line in vanishing.stdout)
        wait_for_history(server, "vanishes", rows=3)
        vanishing.kill()
        assert [trials[way].wait(timeout=120) for way in trials] == [-9, 1, 0]
        time.sleep(2)  # as long as the short limit
        for trial in trials.values():
            if trial.stdout is not None:
                trial.stdout.close()
        yield RealSweep(sweep_id, server, folder)


@pytest.mark.client
def test_a_real_sweep_is_ranked_by_peak_and_every_end_has_its_cause(real_sweep: RealSweep) -> None:
    ended = real_sweep.analyze(real_sweep.sweep_id, "--json", "--csv", "runs.csv", "--html", "page.html")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[0] == (f"W&B: embedded server at {real_sweep.server.base_url} (by WANDB_BASE_URL)")
    document = json.loads(ended.stdout)
    runs = {run["run_id"]: run for run in document["runs"]}
    assert list(runs) == ["vanishes", "completes", "diverges"]
    assert {run_id: run["cause"] for run_id, run in runs.items()} == {
        "vanishes": "lost",
        "completes": "completed",
        "diverges": "diverged",
    }
    assert document["summary"]["hidden_gems"] == ["vanishes"]
    assert document["summary"]["best_whole"] == "completes"
    assert (runs["completes"]["peak"], runs["completes"]["peak_epoch"]) == (0.55, 777)
    assert (runs["completes"]["last"], runs["completes"]["epochs"], runs["completes"]["test"]) == (0.3, 1200, 0.2)
    assert (runs["vanishes"]["peak"], runs["vanishes"]["peak_epoch"]) == (0.6, 2)
    assert (runs["diverges"]["peak"], runs["diverges"]["last"], runs["diverges"]["exit_code"]) == (0.25, None, 1)
    assert document["failure_rate"]["failures"] == 2

    table = list(csv.DictReader(io.StringIO((real_sweep.folder / "runs.csv").read_text())))
    assert [line["run_id"] for line in table] == list(runs)
    assert {line["config.lr"] for line in table} == {"0.1"}
    assert "777" in (real_sweep.folder / "page.html").read_text()


@pytest.mark.client
def test_the_public_api_gives_the_same_causes_and_single_runs_can_be_read(real_sweep: RealSweep) -> None:
    def causes(*arguments: str) -> dict[str, str]:
        ended = real_sweep.analyze(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return {run["run_id"]: run["cause"] for run in json.loads(ended.stdout)["runs"]}

    whole = causes(real_sweep.sweep_id, "--public-api", "--no-cache")
    assert whole == {"vanishes": "lost", "completes": "completed", "diverges": "diverged"}
    assert causes("--runs", "elsewhere/vanishes", "local/elsewhere/diverges", "--entity", "local") == {
        "vanishes": "lost",
        "diverges": "diverged",
    }
    assert causes("--runs", "vanishes", "completes") == {"vanishes": "lost", "completes": "completed"}
    assert causes("--runs", f"{real_sweep.server.base_url}/local/elsewhere/runs/completes") == {
        "completes": "completed"
    }
    missing = real_sweep.analyze("--project", "nonesuch")
    assert (missing.returncode, "Traceback" in missing.stderr) == (2, False)


@pytest.mark.client
def test_the_report_of_a_real_sweep_fits_in_100_columns(real_sweep: RealSweep) -> None:
    url = f"{real_sweep.server.base_url}/local/elsewhere/sweeps/{real_sweep.sweep_id}"
    ended = real_sweep.analyze(url, "--markdown", "report.md")
    assert ended.returncode == 0, ended.stderr
    assert "vanishes" in ended.stdout
    assert "It is a hidden gem: 5.00 points better than the best run that ended well" in " ".join(ended.stdout.split())
    assert "python train.py --epochs=1200 --lr=0.1" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 100
    assert (real_sweep.folder / "report.md").read_text().startswith("## Sweep")


@pytest.mark.client
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonesuch"], "no sweep nonesuch"),
        (["local/elsewhere/nonesuch"], "nearest:\n  local/elsewhere/"),
        (["SWEEP", "--metric", "val/loss"], "give its --goal"),
        (["SWEEP", "--metric", "val/nothing", "--goal", "minimize"], "val/acc"),
    ],
)
def test_a_missing_sweep_or_metric_is_refused_with_candidates(
    real_sweep: RealSweep, arguments: list[str], message: str
) -> None:
    ended = real_sweep.analyze(*(real_sweep.sweep_id if word == "SWEEP" else word for word in arguments))
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


@pytest.mark.client
def test_the_report_says_that_a_sweep_has_no_runs(real_sweep: RealSweep) -> None:
    created = subprocess.run(
        [sys.executable, "-c", CREATE],
        env={**real_sweep.server.environment(), "WANDB_SILENT": "true"},
        cwd=real_sweep.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    empty = next(line.split()[1] for line in created.stdout.splitlines() if line.startswith("ID"))
    ended = real_sweep.analyze(f"elsewhere/{empty}")
    assert ended.returncode == 0
    assert "This sweep has no runs yet." in ended.stdout


@pytest.mark.client
def test_a_next_sweep_is_written_and_passes_the_dry_run(real_sweep: RealSweep) -> None:
    ended = real_sweep.analyze(real_sweep.sweep_id, "--next", "next.yaml")
    assert ended.returncode == 0, ended.stderr
    assert "Next sweep: 2 configurations, at most 2 runs" in ended.stdout
    assert "wrote next.yaml" in ended.stderr
    assert check_sweep((real_sweep.folder / "next.yaml").read_text(), source="next.yaml").problems == []


def test_without_a_next_sweep_the_report_and_the_other_files_are_written(tmp_path: Path) -> None:
    files = {option: tmp_path / option.strip("-") for option in ("--markdown", "--html", "--csv", "--next")}
    options = [str(word) for pair in files.items() for word in pair]
    result = CliRunner().invoke(main, ["--from", "sweeps/recorded/single_runs.yaml", *options])
    assert result.exit_code == 2
    assert "these runs were not read as a sweep. Give a SWEEP" in result.output
    assert "best peak" in result.stdout
    assert {option for option, path in files.items() if path.exists()} == {"--markdown", "--html", "--csv"}


@pytest.mark.parametrize(
    ("option", "begins"),
    [("--csv", "rank,"), ("--markdown", "## Sweep"), ("--html", "<!doctype html>"), ("--next", "#")],
)
def test_a_dash_prints_the_file_instead_of_the_report(option: str, begins: str) -> None:
    result = CliRunner().invoke(main, ["--from", "sweeps/recorded/bapdavm5.yaml", option, "-"])
    assert result.exit_code == 0, result.output
    assert result.stdout.lower().startswith(begins.lower())
    assert not Path("-").exists()


def test_several_files_are_all_read() -> None:
    names = ["bapdavm5", "94fqx0gz"]
    files = [word for name in names for word in ("--from", f"sweeps/recorded/{name}.yaml")]
    document = json.loads(CliRunner().invoke(main, [*files, "--json"]).stdout)
    assert [side["title"] for side in document["sides"]] == names


@pytest.mark.parametrize("options", [[], ["--json"], ["--top", "0"]])
def test_a_closed_pipe_is_no_failure_and_every_file_is_written(tmp_path: Path, options: list[str]) -> None:
    files = {option: tmp_path / option.strip("-") for option in ("--markdown", "--html", "--csv")}
    program = "from amc_analysis.cli import main; main()"
    command = [sys.executable, "-c", program, "--from", "sweeps/recorded/94fqx0gz.yaml"]
    words = [str(word) for pair in files.items() for word in pair]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*command, *options, *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    assert all(path.stat().st_size for path in files.values())
    for path in files.values():
        path.unlink()
    assert subprocess.run([*command, *options, *words], stdout=writer, stderr=writer, check=False).returncode == 0
    os.close(writer)
    assert (ended.returncode, "Traceback" in ended.stderr, "Exception" in ended.stderr) == (0, False, False)
    assert all(path.stat().st_size for path in files.values())


def test_a_file_that_cannot_be_written_hides_neither_the_report_nor_the_other_files(tmp_path: Path) -> None:
    other = tmp_path / "runs.csv"
    options = ["--markdown", "/dev/full", "--csv", str(other)]
    result = CliRunner().invoke(main, ["--from", "sweeps/recorded/94fqx0gz.yaml", *options])
    assert result.exit_code == 1
    assert "/dev/full could not be written: No space left on device" in result.stderr
    assert "best peak" in result.stdout
    assert other.exists()


def test_the_schema_of_json_is_printed_without_any_server() -> None:
    result = CliRunner().invoke(main, ["--json-schema"])
    assert result.exit_code == 0
    schema = json.loads(result.output)
    assert schema["title"].startswith(f"amc-analyze, version {SCHEMA_VERSION};")
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    sweeps = [analyse(sweep(completed("a", [0.1, 0.2]), completed("b", [0.3]))) for _ in range(2)]
    documents = [to_json(analysed) for analysed in sweeps]
    several = json.loads(comparison_json(compare(sweeps), documents))
    for document in (json.loads(documents[0]), several):
        assert [error.message for error in validator.iter_errors(document)] == []
    assert not validator.is_valid({**several, "version": 0})
    assert not validator.is_valid({**several, "sides": [{"title": "only a name"}]})
