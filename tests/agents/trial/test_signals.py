"""What a signal does to a trial; real processes get real signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping

import pytest
import wandb

from amc_agents.trial.signals import StopRequests

PROGRAM = """
import os, sys, time
from amc_agents.trial.signals import StopRequests
stop = StopRequests(os.environ)
stop.listen()
print("listening", flush=True)
deadline = time.monotonic() + 10
while stop() is None and time.monotonic() < deadline:
    time.sleep(0.01)
print(stop(), flush=True)
time.sleep(float(sys.argv[1]))
print(stop(), flush=True)
"""


def _send(signals: list[signal.Signals], environ: Mapping[str, str], pause_s: float = 0.0) -> tuple[list[str], int]:
    """Send the signals one by one; return the request after each, and the exit code."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(pause_s)], stdout=subprocess.PIPE, text=True, env={**environ}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    requests = []
    for number in signals:
        process.send_signal(number)
        requests.append(process.stdout.readline().strip())
    process.communicate(timeout=10)
    return requests, process.returncode


@pytest.fixture
def environ() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(path for path in sys.path if path)}


@pytest.mark.parametrize(
    ("number", "declared", "reason"),
    [
        (signal.SIGTERM, {}, "stopped"),
        (signal.SIGTERM, {"AMC_SIGTERM": "preemption"}, "preempted"),
        (signal.SIGUSR1, {}, "preempted"),
        (signal.SIGINT, {}, "interrupted"),
    ],
)
def test_a_signal_means_what_the_table_says(
    number: signal.Signals, declared: dict[str, str], reason: str, environ: dict[str, str]
) -> None:
    assert _send([number], {**environ, **declared}) == ([reason], 0)


def test_the_first_request_wins(environ: dict[str, str]) -> None:
    requests, code = _send([signal.SIGUSR1, signal.SIGTERM], environ, pause_s=0.5)
    assert (requests, code) == (["preempted", "preempted"], 0)


def test_a_second_interrupt_ends_at_once(environ: dict[str, str]) -> None:
    requests, code = _send([signal.SIGINT, signal.SIGINT], environ, pause_s=10)
    assert (requests[0], code) == ("interrupted", -signal.SIGINT)


def test_the_clients_own_stop_is_not_an_interruption() -> None:
    stop = StopRequests({})
    assert stop() is None
    settings = stop.wandb_settings()
    assert settings.stop_fn is not None
    settings.stop_fn()
    assert stop() == "stopped"


@pytest.mark.parametrize(("environ", "reason"), [({"WANDB_SWEEP_ID": "s"}, "stopped"), ({}, "interrupted")])
def test_a_client_that_stops_a_trial_by_sigint_stops_it_in_a_sweep(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], reason: str
) -> None:
    monkeypatch.delitem(wandb.Settings.model_fields, "stop_fn")  # as before wandb 0.28
    before = signal.getsignal(signal.SIGINT)
    stop = StopRequests(environ)
    assert stop.wandb_settings().stop_fn is None
    signal.signal(signal.SIGINT, stop._on_signal)
    signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert stop() == reason


@pytest.fixture
def listening() -> Iterator[StopRequests]:
    """Requests to this process; its handlers are restored."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    stop = StopRequests({"AMC_SIGTERM": "preemption"})
    stop.listen()
    yield stop
    signal.set_wakeup_fd(-1)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_sigterm_after_wandbs_own_stop_is_not_a_preemption(
    listening: StopRequests,
) -> None:
    listening.by_wandb()
    signal.raise_signal(signal.SIGTERM)
    assert listening() == "stopped"


def test_a_preemption_that_is_not_read_in_time_calls_the_action(listening: StopRequests) -> None:
    called = threading.Event()
    listening.when_overdue(called.set, limit_s=0.01)
    signal.raise_signal(signal.SIGUSR1)
    assert called.wait(timeout=10)


@pytest.mark.parametrize("over", [False, True])
def test_a_preemption_that_is_read_or_comes_at_the_end_is_not_overdue(listening: StopRequests, *, over: bool) -> None:
    called = threading.Event()
    listening.when_overdue(called.set, limit_s=0.2)
    signal.raise_signal(signal.SIGUSR1)
    (timer,) = (thread for thread in threading.enumerate() if isinstance(thread, threading.Timer))
    if over:
        listening.when_overdue(None)
    else:
        assert listening() == "preempted"
    timer.join(timeout=10)
    assert not called.is_set()


def test_a_preemption_is_recorded_during_one_long_call_of_the_main_thread() -> None:
    program = """
import ctypes, os, threading
from amc_agents.trial.signals import StopRequests
stop = StopRequests({})
stop.listen()
stop.when_overdue(lambda: os._exit(7), limit_s=0.01)
threading.Timer(0.1, os.kill, (os.getpid(), 10)).start()
libc, mutex = ctypes.CDLL(None), (ctypes.c_char * 64)()
libc.pthread_mutex_init(mutex, None)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)  # blocks for ever without the interpreter lock, as a backward pass does
"""
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=path, timeout=25, check=False)
    assert done.returncode == 7


def test_a_stop_is_never_overdue(listening: StopRequests) -> None:
    listening.when_overdue(lambda: None, limit_s=60)
    listening.by_wandb()
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())
