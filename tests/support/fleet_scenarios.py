"""A fleet as a user runs it: ``amc-sweep agent`` as a process, the plain wandb agent and client, the real server.

Trials are a few lines of Python: what is tested is what becomes of their ends, which is the same for any script.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from client_scenarios import Researcher, trials_in, wait_until
from embedded_server import EmbeddedServer

TRIAL = """
import math, os, resource, signal, sys, time
import wandb
from amc_agents.trial.signals import StopRequests
from amc_sweeps.runs.causes import EXIT_CODES, EndReason

fault = next(argument.partition("=")[2] for argument in sys.argv if argument.startswith("--fault="))
if fault == "disk full":
    os.environ["WANDB_DIR"] = os.environ["SMALL_DISK"]
stop = StopRequests(os.environ)
if fault != "stopped without a handler":
    stop.listen()
if fault == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
run = wandb.init(settings=wandb.Settings(stop_fn=stop.by_wandb))
data, notes = f"{run.id}.data", f"{run.id}.notes"
open(data, "w").close()
first = int(open(notes).read()) if os.path.exists(notes) else 0

def end(reason):
    run.summary["end_reason"] = str(reason)
    if reason == "preempted":
        run.mark_preempting()
    run.finish(exit_code=EXIT_CODES[EndReason(reason)])
    sys.exit(EXIT_CODES[EndReason(reason)])

if os.environ.get("AMC_WORKER") == os.environ.get("BAD_WORKER", "none"):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
lasting = fault in ("long", "deaf", "killed", "preempted") or "stopped" in fault
epochs = int(os.environ.get("EPOCHS", "400")) if lasting else 3
for epoch in range(first, 5 if first else epochs):
    run.log({"epoch": epoch, "val/acc": epoch / 1000})
    if fault == "preempted":
        open(notes, "w").write(str(epoch + 1))
    if fault == "data gone" and epoch == 1:
        os.remove(data)
    open(data).close()
    if epochs > 3:
        time.sleep(0.1)
    if stop():
        end(stop())
if fault == "out of memory":
    resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
    bytearray(2**33)
if fault == "nan":
    run.log({"epoch": 3, "val/acc": math.nan})
    end("diverged")
if fault == "exception":
    raise ValueError("the shapes do not match")
if fault == "disk full":
    with open(os.path.join(os.environ["SMALL_DISK"], "last.pt"), "wb") as file:
        while True:
            file.write(bytes(2**20))
end("completed")
"""


class Fleet:
    """One ``amc-sweep agent --json`` of a researcher."""

    def __init__(self, person: Researcher, sweep: str, *options: str, **env: str) -> None:
        number = len(list(person.folder.glob("fleet*.log")))
        self._said = person.folder / f"fleet{number}.log"
        self._complained = person.folder / f"fleet{number}.err"
        self._folder = person.folder
        code = "from amc_agents.commands import main; main()"
        own = {"WANDB_DIR": str(person.folder), "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1", **env}
        with self._said.open("wb") as said, self._complained.open("wb") as complained:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "agent", sweep, "--json", "--stagger", "0.5s", *options],
                cwd=person.folder,
                env={**EmbeddedServer.process_environment(), **person.server.environment(**own)},
                stdout=said,
                stderr=complained,
                start_new_session=True,
            )

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the fleet has said so far."""
        return [json.loads(line) for line in self._said.read_text().splitlines() if line.endswith("}")]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def complaint(self) -> str:
        """What it wrote to stderr."""
        return self._complained.read_text()

    def wait(self, seconds: float = 120) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            said = [event["text"] for event in self.events]
            raise AssertionError("\n".join(["the fleet does not end", *said, self.complaint])) from None

    def cause(self, run: str) -> str | None:
        """Return the last word on a run's cause."""
        return next((event["cause"] for event in reversed(self.of("ended")) if event.get("run") == run), None)

    def processes(self) -> list[psutil.Process]:
        """Return everything alive that works in the fleet's folder or was started by it, but not the fleet itself."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                mine = process.environ().get("WANDB_DIR", "").startswith(str(self._folder))
                if mine and process.pid != self.process.pid and "AMC_FLEET_ID" in process.environ():
                    found.append(process)
        return found

    def end(self) -> None:
        """End it and all that it started."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


class Person(Researcher):
    """A researcher whose trials fail in the way that the sweep's parameter ``fault`` says."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        folder.mkdir()
        super().__init__(folder, server)
        (folder / "train.py").write_text(TRIAL)
        self._fleets: list[Fleet] = []

    def sweep_of(self, faults: Sequence[str], repeats: int = 1) -> str:
        """Register a sweep with one trial a fault (times ``repeats``) and return its path."""
        return self.create_sweep(
            "program: train.py\nmethod: grid\nmetric: {name: val/acc, goal: maximize}\nparameters:\n"
            f"  a: {{values: {list(range(repeats))}}}\n  fault: {{values: {json.dumps(list(faults))}}}\n"
        )

    def fleet(self, sweep: str, *options: str, **env: str) -> Fleet:
        """Start a fleet."""
        fleet = Fleet(self, sweep, *options, **env)
        self._fleets.append(fleet)
        return fleet

    def runs(self, sweep: str) -> dict[str, dict[str, Any]]:
        """Return the sweep's runs by fault."""
        found = {}
        for name, run in self.sweep(sweep)["runs"].items():
            fault = json.loads(run["config"])["fault"]["value"]
            found[fault] = {**run, "id": name}
        return found

    def epochs(self, run: str) -> list[int]:
        """Return the epochs of a run that the server holds."""
        document = """query H($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) {
            history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""
        answer = self.server.graphql(document, run=run)["project"]["run"]["history"]
        return [json.loads(line)["epoch"] for line in answer]

    def acknowledged(self, sweep: str, fault: str, least: int = 3) -> list[int]:
        """Wait until the server has some epochs of a run, and return them: they may not be lost any more."""

        def rows() -> list[int]:
            run = self.runs(sweep).get(fault)
            found = self.epochs(run["id"]) if run else []
            return found if len(found) >= least else []

        return list(wait_until(rows, f"the server holds {least} epochs of {fault!r}", 90))

    def pid_of(self, fault: str) -> int:
        """Return the process of the trial."""
        for pid in trials_in(self.folder):
            with contextlib.suppress(OSError):
                if f"--fault={fault}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        raise AssertionError(f"no trial with {fault!r} is alive")

    def stop(self, run: str) -> None:
        """Ask for a run's end, as the button on its page does."""
        document = (
            """query I($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) { id } } }"""
        )
        found = self.server.graphql(document, run=run)["project"]["run"]["id"]
        self.server.graphql("mutation StopRun($id: ID!) { stopRun(input: {id: $id}) { success } }", id=found)

    def end(self) -> None:
        """End everything."""
        for fleet in self._fleets:
            fleet.end()
        super().end()


def side_by_side(folder: Path, stories: Sequence[Callable[[Person], Any]], *limits: str) -> dict[str, Future[Any]]:
    """Run stories at the same time, each with a server and a folder of its own, and return what each came to.

    Most of a story is waiting for agents, which ask for work every five seconds. To be called before anything changes
    this process's environment.

    Args:
        folder: for all of them.
        stories: each gets a person.
        limits: of the servers, ``NAME=SECONDS``.
    """
    foreign = [name for name in os.environ if name.startswith(("WANDB_", "AMC_", "SLURM_"))]

    def tell(story: Callable[[Person], Any]) -> Any:
        own = folder / story.__name__
        own.mkdir()
        options = tuple(part for limit in limits for part in ("--limit", limit))
        with EmbeddedServer(own / "data", options=options) as server:
            person = Person(own / "work", server)
            try:
                return story(person)
            finally:
                person.end()

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        for name in foreign:
            patch.delenv(name)
        patch.setenv("HOME", str(folder))
        patch.setenv("AMC_STATE_DIR", str(folder / "state"))
        futures = {story.__name__: pool.submit(tell, story) for story in stories}
        wait(futures.values())
    return futures


class Network:
    """The way to a server, which can be cut: connections are refused then, and those that were open are gone."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._target = int(server.base_url.rsplit(":", 1)[1])
        self._port = 0
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.restore()

    @property
    def base_url(self) -> str:
        """Where the server is found through this network."""
        return f"http://127.0.0.1:{self._port}"

    def restore(self) -> None:
        """Let connections through."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse new connections and drop the old ones."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


def agents_of(fleet: Fleet) -> list[int]:
    """Return the ids of the plain agents that a fleet runs."""
    found = []
    for process in psutil.Process(fleet.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "agent" in process.cmdline() and any(Path(part).name == "wandb" for part in process.cmdline()[:3]):
                found.append(process.pid)
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal."""
    os.kill(pid, number)


@dataclass(frozen=True)
class Costs:
    """What a bad device did to a sweep."""

    failed: int
    finished: int
    failed_on: dict[str, int]
    message: str


def bad_device_among_four(person: Person, runs: int) -> Costs:
    """Run a sweep on four workers; every trial on the second fails as soon as it touches its device."""
    sweep = person.sweep_of(["nothing"], repeats=runs)
    fleet = person.fleet(sweep, "--workers", "4", BAD_WORKER="cpu1")
    assert fleet.wait(900) == 0, fleet.complaint
    states = Counter(run["state"] for run in person.sweep(sweep)["runs"].values())
    assert sum(states.values()) == runs
    assert fleet.processes() == []
    return Costs(
        failed=states["failed"],
        finished=states["finished"],
        failed_on=dict(Counter(event["worker"] for event in fleet.of("ended") if event["cause"] == "error")),
        message=" ".join(event["text"] for event in fleet.of("quarantined")),
    )
