"""Messages to a webhook: a real HTTP server takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from webhook import Webhook

from amc_agents import notify
from amc_agents.commands import main
from amc_agents.commands.status import notified
from amc_agents.fleet.display import Event, LineDisplay, NotifyingDisplay, Row
from amc_agents.notify import BEST_EVERY_S, BestSoFar, FreeSpace, Notifier
from amc_agents.sweep_status import BestRun, Status, SweepAgent, TimeLeft


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    monkeypatch.setattr(notify, "TRIES_AFTER_S", (0.0, 0.01, 0.01))
    hook = Webhook()
    yield hook
    hook.close()


def test_messages_arrive_in_order_with_their_facts(webhook: Webhook) -> None:
    notifier = Notifier(webhook.url, "local/amc/s")
    for number in range(3):
        notifier.send("best", f"new best {number}", best=number)
    notifier.close()
    assert [message["best"] for message in webhook.messages] == [0, 1, 2]
    assert webhook.messages[0] == {
        "text": "local/amc/s: new best 0", "event": "best", "sweep": "local/amc/s", "best": 0,
    }  # fmt: skip


def test_a_failure_is_tried_again_and_then_said_without_the_secret(
    webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    notifier = Notifier(webhook.url, "s")
    webhook.codes.extend([500, 503])
    notifier.send("done", "twice in vain")
    notifier.close()
    assert [message["event"] for message in webhook.messages] == ["done"]
    notifier = Notifier("http://127.0.0.1:9/secret-token", "s")
    notifier.send("done", "nobody there")
    notifier.close()
    err = capsys.readouterr().err
    assert "the webhook at 127.0.0.1 did not take a message" in err
    assert "secret-token" not in err


def test_a_redirect_is_no_delivery(webhook: Webhook, capsys: pytest.CaptureFixture[str]) -> None:
    webhook.codes.extend([301, 302, 302])
    notifier = Notifier(webhook.url, "s")
    notifier.send("done", "it would be asked for without the message")
    notifier.close()
    assert "did not take a message: HTTP Error 302" in capsys.readouterr().err


def test_a_best_value_is_told_at_once_and_then_rarely() -> None:
    best = BestSoFar(minimise=True)
    assert best.update(None, 0.0) is None
    assert best.update(0.9, 1.0) == 0.9
    assert best.update(0.8, 2.0) is None
    assert best.update(0.85, 3.0 + BEST_EVERY_S) == 0.8, "later, and the best of all"
    assert best.update(0.85, 9e9) is None, "it is not new"


def test_a_disk_that_runs_full_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([20, 4, 3, 6, 11, 4])
    monkeypatch.setattr(notify.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free) * 2**30))
    space = FreeSpace(tmp_path)
    assert [space.shortage() for _ in range(6)] == [None, 4 * 2**30, None, None, None, 4 * 2**30]
    monkeypatch.undo()
    assert FreeSpace(tmp_path / "removed").shortage() is None


def test_a_fleet_sends_what_a_person_should_know(webhook: Webhook, tmp_path: Path) -> None:
    notifier = Notifier(webhook.url, "s")
    with (tmp_path / "log").open("w") as log:
        display = NotifyingDisplay(LineDisplay(log), notifier, tmp_path, minimise=False)
        display.report(Event("began", "gpu0", "abc begins"))
        row = Row("gpu0", None, None, None, "abc", "for 1 min", 3, 0.41, 0, {})
        display.show([row])
        display.show([replace(row, peak=0.47)])
        display.report(Event("quarantined", "gpu1", "gpu1 gets no more trials", {"run": None}))
        display.report(Event("done", None, "the sweep is over", {"exit_code": 0}))
        display.close()
    notifier.close()
    assert [(message["event"], message["text"]) for message in webhook.messages] == [
        ("best", "s: new best on this machine: 0.41 (run abc)"),
        ("quarantined", "s: gpu1: gpu1 gets no more trials"),
        ("done", "s: the sweep is over; best here 0.47"),
    ]


def test_status_sends_best_idle_and_end(webhook: Webhook) -> None:
    best = BestRun("r1", "r1", 0.5, 3, "completed", "50.00%")
    agent = SweepAgent("a", "gpu-1", 1, 3.0)
    status = Status(
        "e/p/s", "s", "RUNNING", None, "acc", "maximize", None, 1, 0, 4, {"finished": 1}, {"completed": 1}, best,  # type: ignore[arg-type]
        (agent,), (), 3, None, TimeLeft(60.0, "so"), 0,
    )  # fmt: skip
    idle = replace(status, agents=(replace(agent, silent_s=600.0),))
    over = replace(status, state="FINISHED")
    assert len(list(notified(iter([status, status, idle, idle, over]), Notifier(webhook.url, "e/p/s")))) == 5
    assert [message["event"] for message in webhook.messages] == ["best", "idle", "done"]
    assert webhook.messages[-1]["text"].startswith("e/p/s: finished: 1 of 4")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "http or https address"),
        ("hooks.slack.com/x", "http or https address"),
        ("http://", "http or https address"),
        ("http://[/secret", "http or https address"),
        ("http://host:99999/secret", "http or https address"),
        ("http://host:port/secret", "http or https address"),
        ("https://me:secret@host/", "without a user's name"),
        ("https://host/a secret", "percent-encoded"),
        ("https://host/s\u00e9cret", "percent-encoded"),
        ("https://host/secret\n", "percent-encoded"),
    ],
)
def test_an_address_that_is_no_webhook_is_refused_and_not_repeated(url: str, words: str) -> None:
    ended = CliRunner().invoke(main, ["status", "s", "--watch", "--notify", url])
    assert ended.exit_code == 2
    assert words in ended.stderr
    assert "secret" not in ended.stderr


def test_an_address_that_the_client_refuses_ends_no_thread(
    webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    notifier = Notifier("http://" + "x" * 70 + "\u00e9/secret", "s")  # no label of a host's name is so long
    notifier.send("done", "one")
    notifier.send("done", "two")
    notifier.close()
    assert capsys.readouterr().err.count("did not take a message") == 2
