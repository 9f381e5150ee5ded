"""Check a sweep file against W&B's grammar, TrialConfig and the metrics that a trial logs.

The checks are functions in problems.py and warnings.py, listed at the end of each. They need no server. An error that
is reported here costs seconds; without the check it costs an agent's run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amc_agents.preflight.flat_sweep import Check, FlatSweep
from amc_agents.preflight.problems import OTHER_PROGRAM_PROBLEMS, TRIAL_PROBLEMS, VARIANT_PROBLEMS
from amc_agents.preflight.warnings import OTHER_PROGRAM_WARNINGS, SEARCH_WARNINGS, TRIAL_WARNINGS, WARNINGS
from amc_sweeps.grammar.configurations import count_configurations
from amc_sweeps.grammar.hyperband import bands
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.sweep_config import SweepConfig
from amc_sweeps.number_formats import listed

MOST_VARIANTS = 2  # named in a message
_LONGEST_TRIAL = 10_000  # logged values; the limit for bands of a program whose epochs are unknown


@dataclass(frozen=True)
class Preflight:
    """The result. Do not register a sweep with ``problems``; one with ``warnings`` may be as intended."""

    source: str
    problems: list[str]
    warnings: list[str]
    configurations: int | None = None  # different ones; None: infinitely many, or the file is unreadable
    bands_epochs: tuple[int, ...] = ()  # epochs after which Hyperband may stop a run, without the last one
    epochs_at_most: int | None = None  # of all runs, if none is stopped early; None: no limit, or unknown
    sweep: SweepConfig | None = None  # None where the text is not a sweep


def check_sweep(text: str, *, source: str, crashed_runs: str | None = None) -> Preflight:
    """Check the YAML text of a sweep file; all problems are reported at once.

    Args:
        text: the content of the file.
        source: where it came from, for the report.
        crashed_runs: what ``amc-sweep create --crashed-runs`` says, if it is given.
    """
    config, problems = parse_leniently(text)
    if config is None:
        return Preflight(source, problems, [])
    sweep = FlatSweep(config, None if problems else count_configurations(config), crashed_runs=crashed_runs)
    if sweep.runs_trial:
        problems += [*_messages(VARIANT_PROBLEMS, sweep), *_trial_messages(TRIAL_PROBLEMS, sweep)]
        warnings = [*_messages((*WARNINGS, *SEARCH_WARNINGS), sweep), *_trial_messages(TRIAL_WARNINGS, sweep)]
    else:
        problems += _messages(OTHER_PROGRAM_PROBLEMS, sweep)
        warnings = _messages((*WARNINGS, *OTHER_PROGRAM_WARNINGS), sweep)
    longest = max(sweep.merged.numbers("epochs")) if sweep.runs_trial else _LONGEST_TRIAL
    all_bands = bands(config.early_terminate) if config.early_terminate is not None else ()
    return Preflight(
        source=source,
        problems=list(dict.fromkeys(problems)),
        warnings=warnings,
        configurations=sweep.configurations,
        bands_epochs=tuple(band for band in all_bands if band < longest),
        epochs_at_most=None if problems else _epochs_at_most(sweep),
        sweep=config,
    )


def _messages(checks: Iterable[Check], sweep: FlatSweep) -> list[str]:
    return list(dict.fromkeys(message for check in checks for message in check(sweep)))


def _trial_messages(checks: Iterable[Check], sweep: FlatSweep) -> list[str]:
    """Return each message once; one that only some variants give begins with their names."""
    by_trial = {trial.variant or "": _messages(checks, trial) for trial in sweep.trials}
    lines = []
    for message in dict.fromkeys(message for messages in by_trial.values() for message in messages):
        variants = [repr(variant) for variant, messages in by_trial.items() if message in messages]
        is_general = len(variants) == len(by_trial)
        lines.append(message if is_general else f"variant {listed(variants, MOST_VARIANTS)}: {message}")
    return lines


def _epochs_at_most(sweep: FlatSweep) -> int | None:
    limits = [sweep.config.run_cap, sweep.configurations if sweep.config.method == "grid" else None]
    runs = min((limit for limit in limits if limit is not None), default=None)
    if runs is None or not sweep.runs_trial:
        return None
    return runs * int(max(sweep.merged.numbers("epochs")))
