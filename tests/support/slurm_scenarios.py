"""A researcher who runs sweeps on a real Slurm: the launch command, plain agents, and a trial that can continue."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client_scenarios import Researcher
from embedded_server import EmbeddedServer
from slurm_cluster import SlurmCluster

# A trial that keeps its rows and its end in its run's folder, as amc-train does, and continues from them. With WAIT it
# stays in the middle until it is asked to end. It leaves a process in another session, which ignores SIGTERM.
TRIAL = """
import os, signal, subprocess, sys, time
from pathlib import Path
import wandb
from amc_agents.trial.end_and_history import append_row, read_rows, remove_end, write_end
from amc_agents.trial.signals import StopRequests
from amc_sweeps.runs.causes import EXIT_CODES, EndReason

epochs = int(os.environ.get("EPOCHS", "3"))
stop = StopRequests(os.environ)
stop.listen()
ignore = lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "600"], start_new_session=True, preexec_fn=ignore)
run = wandb.init(resume="allow", settings=stop.wandb_settings())
folder = Path("runs") / run.id
folder.mkdir(parents=True, exist_ok=True)
remove_end(folder)
reason = "completed"
for epoch in range(len(read_rows(folder)) + 1, epochs + 1):
    if stop():
        reason = stop()
        break
    row = {"epoch": epoch, "val/acc": epoch / 1000}
    append_row(folder, row)
    try:
        run.log(row, step=epoch - 1)
    except Exception:  # scancel has ended the client, too
        if not stop():
            raise
    time.sleep(0.1)
    while "WAIT" in os.environ and epoch == epochs // 2 and not stop():
        time.sleep(0.1)
write_end(folder, EndReason(reason), run=run.path)
try:
    run.summary["end_reason"] = str(reason)  # W&B would write the name of an enum
    if reason == "preempted":
        run.mark_preempting()
    run.finish(exit_code=EXIT_CODES[EndReason(reason)])
except Exception as error:
    print("W&B was not informed:", error, flush=True)
    os._exit(EXIT_CODES[EndReason(reason)])
sys.exit(EXIT_CODES[EndReason(reason)])
"""
FIVE_LINES = """
import wandb
run = wandb.init()
run.log({"val/acc": run.config["a"]})
run.finish()
"""
_CODE = "from amc_agents.commands import main; main()"


class SlurmUser(Researcher):
    """A researcher on the login node of a cluster."""

    def __init__(self, folder: Path, server: EmbeddedServer, cluster: SlurmCluster, trial: str = TRIAL) -> None:
        folder.mkdir()
        super().__init__(folder, server)
        self.cluster = cluster
        (folder / "train.py").write_text(trial)

    def grid(self, runs: int) -> str:
        """Register a grid with so many configurations, and return its path."""
        return self.create_sweep(
            "program: train.py\nmethod: grid\nmetric: {name: val/acc, goal: maximize}\n"
            f"parameters: {{a: {{values: {list(range(runs))}}}}}\n"
        )

    def amc_sweep(self, *arguments: str, **env: str) -> str:
        """Run a command and return its standard output."""
        return self._run([sys.executable, "-c", _CODE, *arguments], env)

    def sbatch(self, script: str, **env: str) -> str:
        """Submit a script of the user's own and return the job's id."""
        return self._run(["sbatch", "--parsable", script], env).strip()

    def _run(self, command: list[str], env: Mapping[str, str]) -> str:
        own = {
            **{"WANDB_DIR": str(self.folder), "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"},
            "AMC_CHECKPOINT_ARTIFACT": "never",
        }
        environment = self.server.environment(**{**own, **self.cluster.environment, **env})
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**EmbeddedServer.process_environment(), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def launch(self, sweep: str, *options: str, **env: str) -> str:
        """Submit an array with the launch command and return its id."""
        output = self.amc_sweep("launch", "slurm", sweep, *options, **env)
        match = re.match(r"Slurm job (\d+):", output)
        assert match is not None, output
        return match[1]

    def status(self, sweep: str) -> dict[str, Any]:
        """Return what ``amc-sweep status --json`` prints."""
        return dict(json.loads(self.amc_sweep("status", sweep, "--json")))

    def states(self, sweep: str) -> dict[int | None, str]:
        """Return the state of each configuration's run, by its parameter ``a``."""
        return {run["a"]: run["state"] for run in self.sweep(sweep)["runs"].values()}

    def epochs(self, sweep: str) -> dict[int | None, list[int]]:
        """Return the epochs that the server has of each configuration, by its parameter ``a``."""
        document = """query H($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) {
            history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""
        epochs = {}
        for name, run in self.sweep(sweep)["runs"].items():
            rows = self.server.graphql(document, run=name)["project"]["run"]["history"]
            epochs[run["a"]] = [json.loads(row)["epoch"] for row in rows]
        return epochs

    def with_metadata(self, sweep: str) -> int:
        """Return how many runs have sent their metadata, which names their Slurm job."""
        document = """query F($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) {
            files { edges { node { name } } } } } }"""
        answers = [self.server.graphql(document, run=name)["project"]["run"] for name in self.sweep(sweep)["runs"]]
        names = [{edge["node"]["name"] for edge in run["files"]["edges"]} for run in answers]
        return sum("wandb-metadata.json" in files for files in names)

    def logs(self) -> str:
        """Return the ends of the logs of jobs, agents and daemons, for the message of a failed test."""
        folders = (self.folder / "slurm-logs", self.cluster.folder)
        files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.suffix in (".out", ".log")]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)
