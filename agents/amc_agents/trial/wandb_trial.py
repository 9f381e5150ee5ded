"""A trial with a W&B run: what it trains, and how W&B gets its end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amc_agents.trial.end_and_history import write_end
from amc_agents.trial.evaluations import upload_evaluations
from amc_agents.trial.relaunch import continued_values
from amc_agents.trial.resume_checkpoint import UploadWhen, find_artifact, find_resume_point, upload_checkpoint
from amc_agents.trial.wandb_recorder import ClientLostError, RunRecorder, detect_lost_client
from amc_core.config import TrialConfig, expand_variant, is_same
from amc_core.files import use_folder
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.causes import EXIT_CODES, EndReason

if TYPE_CHECKING:
    import wandb

NOTES = frozenset({"repeat_of"})  # entries of a queued run's config that are about the run, for people and the analysis


class WandbTrial:
    """One run and its folder, from its configuration to its end."""

    def __init__(self, run: wandb.Run, folder: Path, upload: UploadWhen) -> None:
        self._run = run
        self._upload = upload
        self.folder = folder
        self.path = f"{run.entity}/{run.project}/{run.id}"
        self.recorder = RunRecorder(run, folder)

    def resolve_config(self, flags: Mapping[str, Any], notes: Mapping[str, Any]) -> TrialConfig:
        """Return the configuration of a new or a continued trial; write it, with the notes, to the run's config."""
        run = self._run
        self.folder.mkdir(parents=True, exist_ok=True)
        use_folder(self.folder)  # until this process ends: amc-sweep clean then leaves it alone
        # From the sweep; ${args} repeats it as flags. A note such as repeat_of is no setting.
        recorded = {name: value for name, value in dict(run.config).items() if name not in NOTES}
        machine, flags = data_of_machine(), expand_variant(flags)
        if run.resumed:
            values = continued_values(recorded, machine, flags)
        else:
            values = {**machine, **flags, **expand_variant(recorded)}
        config = TrialConfig.from_mapping(values)
        with detect_lost_client():
            # An equal value in other words stays as it is: a sweep has locked its own, and the client would warn.
            changes = {
                name: value
                for name, value in config.to_mapping().items()
                if name not in recorded or not is_same(name, recorded[name], value)
            }
            run.config.update({**changes, **notes}, allow_val_change=run.resumed)
        point = find_resume_point(str(run.id), self.folder, self._find_artifact)
        if point is None:
            self.recorder.begin()
            if run.resumed:
                click.echo(
                    f"amc-train: run {run.id} starts over: no checkpoint in {self.folder}, and none at W&B", err=True
                )
            return config
        click.echo(
            f"amc-train: run {run.id} goes on after epoch {point.epoch} and {counted(point.steps_done, 'step')}, "
            f"from {point.source}",
            err=True,
        )
        self.recorder.resume(epochs=point.epoch, last=point.metrics)
        return replace(config, init_from=None, resume_from=str(point.path))

    def _find_artifact(self) -> Any | None:
        import wandb

        may_exist = self._run.resumed and self._upload is not UploadWhen.NEVER
        return find_artifact(wandb.Api(), self.path) if may_exist else None

    def finish(self, reason: EndReason) -> None:
        """Report the end to W&B and upload what belongs to it; if that fails, exit at once with the reason's code."""
        try:
            self._finish(reason)
        except Exception as error:  # noqa: BLE001 - the reason stays the same whatever happened to the client
            click.echo(f"amc-train: {reason}, but W&B was not informed: {type(error).__name__} {error}", err=True)
            sys.stderr.flush()
            os._exit(EXIT_CODES[reason])  # the client's exit handler would wait for the dead process, or fail

    def abandon(self) -> None:
        """End as preempted in the middle of a long step or load, with the last checkpoint or none; never returns."""
        click.echo("amc-train: preempted during a long step or load: the training since last.pt is lost", err=True)
        with contextlib.suppress(OSError):
            write_end(self.folder, EndReason.PREEMPTED, run=self.path)
        try:
            self._finish(EndReason.PREEMPTED)
        finally:
            os._exit(EXIT_CODES[EndReason.PREEMPTED])

    def _finish(self, reason: EndReason) -> None:
        """Report the end, the most urgent part first: there may be only seconds left."""
        run, is_preempted = self._run, reason is EndReason.PREEMPTED
        run.summary["end_reason"] = str(reason)
        if is_preempted:
            run.mark_preempting()
        needs_upload = self._upload is UploadWhen.END or (is_preempted and self._upload is UploadWhen.PREEMPTION)
        # The checkpoint goes before run.finish, which lets the run be handed out again.
        if needs_upload and (self.folder / "last.pt").is_file():
            _try("upload the checkpoint", lambda: upload_checkpoint(run, self.folder))
        epochs = (self.recorder.facts.get("best_epoch"), self.recorder.epoch)
        # No pictures of a preempted trial: its continuation will draw them.
        _try(
            "upload the evaluation",
            lambda: upload_evaluations(run, self.folder, epochs, pictures=not is_preempted),
        )
        run.finish(exit_code=EXIT_CODES[reason])


def data_of_machine() -> dict[str, str]:
    """Return the data file that AMC_DATA names, as a setting; empty without AMC_DATA."""
    return {"data": path} if (path := os.environ.get("AMC_DATA")) else {}


def _try(action: str, act: Callable[[], None]) -> None:
    """Call a function whose errors must not change the end of the trial; only a lost client is raised."""
    try:
        with detect_lost_client():
            act()
    except ClientLostError:
        raise
    except Exception as error:  # noqa: BLE001
        click.echo(f"amc-train: could not {action}: {type(error).__name__} {error}", err=True)
