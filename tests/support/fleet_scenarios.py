"""A fleet as a user runs it: the process ``amc-sweep agent``, the plain wandb agent and client, and the real server.

The trials are a short script, since the tests are about how trials end.
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

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # W&B's own stop interrupts the main thread
    sys.exit("this trial would not hear W&B's stop")
fault = next(argument.partition("=")[2] for argument in sys.argv if argument.startswith("--fault="))
if fault == "disk full":
    os.environ["WANDB_DIR"] = os.environ["SMALL_DISK"]
stop = StopRequests(os.environ)
if fault != "stopped without a handler":
    stop.listen()
if fault == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
run = wandb.init(settings=stop.wandb_settings())
data, notes = f"{run.id}.h5", f"{run.id}.notes"
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

    def __init__(self, person: Researcher, sweep: str, *options: str, unread: bool = False, **env: str) -> None:
        number = len(list(person.folder.glob("fleet*.log")))
        self._events_file = person.folder / f"fleet{number}.log"
        self._stderr_file = person.folder / f"fleet{number}.err"
        self._folder = person.folder
        code = "from amc_agents.commands import main; main()"
        own = {"WANDB_DIR": str(person.folder), "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1", **env}
        reader, nobody = os.pipe()
        os.close(reader)
        with self._events_file.open("wb") as events, self._stderr_file.open("wb") as stderr, os.fdopen(nobody, "wb"):
            # As in the background of a script (nohup ... &): the shell lets it ignore SIGINT, and children inherit it.
            in_background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
            self.process = subprocess.Popen(
                [*in_background, sys.executable, "-c", code, "agent", sweep, "--json", "--stagger", "0.5s", *options],
                cwd=person.folder,
                env={**EmbeddedServer.process_environment(), **person.server.environment(**own)},
                stdout=nobody if unread else events,
                stderr=nobody if unread else stderr,
                start_new_session=True,
            )

    @property
    def events(self) -> list[dict[str, Any]]:
        """The fleet's events so far."""
        return [json.loads(line) for line in self._events_file.read_text().splitlines() if line.endswith("}")]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def stderr(self) -> str:
        """Its output on stderr."""
        return self._stderr_file.read_text()

    def wait(self, seconds: float = 120) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            texts = [event["text"] for event in self.events]
            raise AssertionError("\n".join(["the fleet does not end", *texts, self.stderr])) from None

    def cause(self, run: str) -> str | None:
        """Return the latest cause of a run's end."""
        return next((event["cause"] for event in reversed(self.of("ended")) if event.get("run") == run), None)

    def processes(self) -> list[psutil.Process]:
        """Return every living process that the fleet has started."""
        processes = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                is_ours = process.environ().get("WANDB_DIR", "").startswith(str(self._folder))
                if is_ours and process.pid != self.process.pid and "AMC_FLEET_ID" in process.environ():
                    processes.append(process)
        return processes

    def end(self) -> None:
        """Kill it and its processes."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


class Person(Researcher):
    """A researcher whose trials fail as the sweep's parameter ``fault`` says."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        folder.mkdir()
        super().__init__(folder, server)
        (folder / "train.py").write_text(TRIAL)
        self._fleets: list[Fleet] = []

    def sweep_of(self, faults: Sequence[str], repeats: int = 1) -> str:
        """Register a sweep with one trial per fault, ``repeats`` times, and return its path."""
        return self.create_sweep(
            "program: train.py\nmethod: grid\nmetric: {name: val/acc, goal: maximize}\nparameters:\n"
            f"  a: {{values: {list(range(repeats))}}}\n  fault: {{values: {json.dumps(list(faults))}}}\n"
        )

    def fleet(self, sweep: str, *options: str, unread: bool = False, **env: str) -> Fleet:
        """Start a fleet; of an unread one nobody reads stdout and stderr."""
        fleet = Fleet(self, sweep, *options, unread=unread, **env)
        self._fleets.append(fleet)
        return fleet

    def runs(self, sweep: str) -> dict[str, dict[str, Any]]:
        """Return the sweep's runs by fault."""
        runs = {}
        for name, run in self.sweep(sweep)["runs"].items():
            fault = json.loads(run["config"])["fault"]["value"]
            runs[fault] = {**run, "id": name}
        return runs

    def epochs(self, run: str) -> list[int]:
        """Return the epochs of a run that the server has."""
        document = """query H($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) {
            history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""
        answer = self.server.graphql(document, run=run)["project"]["run"]["history"]
        return [json.loads(line)["epoch"] for line in answer]

    def acknowledged(self, sweep: str, fault: str, least: int = 3) -> list[int]:
        """Wait until the server has some epochs of a run, and return them: no later accident may lose them."""

        def rows() -> list[int]:
            run = self.runs(sweep).get(fault)
            epochs = self.epochs(run["id"]) if run else []
            return epochs if len(epochs) >= least else []

        return list(wait_until(rows, f"the server has {least} epochs of {fault!r}", 90))

    def pid_of(self, fault: str) -> int:
        """Return the process id of a trial."""
        for pid in trials_in(self.folder):
            with contextlib.suppress(OSError):
                if f"--fault={fault}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        raise AssertionError(f"no trial with {fault!r} is alive")

    def stop(self, run: str) -> None:
        """Ask W&B to stop a run, like the button on its page."""
        document = (
            """query I($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) { id } } }"""
        )
        run_id = self.server.graphql(document, run=run)["project"]["run"]["id"]
        self.server.graphql("mutation StopRun($id: ID!) { stopRun(input: {id: $id}) { success } }", id=run_id)

    def end(self) -> None:
        """End its fleets and itself."""
        for fleet in self._fleets:
            fleet.end()
        super().end()


def side_by_side(folder: Path, stories: Sequence[Callable[[Person], Any]], *limits: str) -> dict[str, Future[Any]]:
    """Run stories at the same time, each with its own server and folder, and return their results by name.

    A story mostly waits for agents, which ask for work every five seconds. Call this before anything changes this
    process's environment.

    Args:
        folder: for all stories.
        stories: each gets a person.
        limits: of the servers, ``NAME=SECONDS``.
    """
    foreign = [name for name in os.environ if name.startswith(("WANDB_", "AMC_", "SLURM_"))]

    def run(story: Callable[[Person], Any]) -> Any:
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
        futures = {story.__name__: pool.submit(run, story) for story in stories}
        wait(futures.values())
    return futures


class Network:
    """A proxy in front of a server. When it is cut, open connections are dropped and new ones refused."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._target = int(server.base_url.rsplit(":", 1)[1])
        self._port = 0
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.restore()

    @property
    def base_url(self) -> str:
        """The address of the server through this network."""
        return f"http://127.0.0.1:{self._port}"

    def restore(self) -> None:
        """Let connections through."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse new connections and drop the open ones."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


def agents_of(fleet: Fleet) -> list[int]:
    """Return the process ids of a fleet's plain agents."""
    agents = []
    for process in psutil.Process(fleet.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "agent" in process.cmdline() and any(Path(part).name == "wandb" for part in process.cmdline()[:3]):
                agents.append(process.pid)
    return agents


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal."""
    os.kill(pid, number)


@dataclass(frozen=True)
class Costs:
    """How many runs of a sweep a bad device cost."""

    failed: int
    finished: int
    failed_on: dict[str, int]
    message: str


def bad_device_among_four(person: Person, runs: int) -> Costs:
    """Run a sweep on four workers. Every trial on the second worker fails as soon as it uses its device."""
    sweep = person.sweep_of(["nothing"], repeats=runs)
    fleet = person.fleet(sweep, "--workers", "4", BAD_WORKER="cpu1")
    assert fleet.wait(900) == 0, fleet.stderr
    states = Counter(run["state"] for run in person.sweep(sweep)["runs"].values())
    assert sum(states.values()) == runs
    assert fleet.processes() == []
    return Costs(
        failed=states["failed"],
        finished=states["finished"],
        failed_on=dict(Counter(event["worker"] for event in fleet.of("ended") if event["cause"] == "error")),
        message=" ".join(event["text"] for event in fleet.of("quarantined")),
    )
