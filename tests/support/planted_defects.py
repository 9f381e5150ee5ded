"""For every rule a simulated sweep with the defect that the rule finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from simulated_sweeps import EPOCH_SD, EPOCHS, HYPERBAND, RUN_SD, Setting, simulate, simulated_sweep

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Rule
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.claims import Claim, ClaimKind
from amc_sweeps.runs.records import Metric, SweepUpdate

N = 30
MIXED = Setting(N, crash=0.1, hyperband=False)


def _resumed(rng: np.random.Generator, jump: float, **fields: Any) -> AnalysedSweep:
    """Return a sweep whose last run starts from the weights of its first run."""
    runs = simulate(Setting(N), rng)
    parent, child = runs[0], runs[-1]
    start = parent.values[int(parent.summary["checkpoint_epoch"]) - 1]
    child.values = (start + jump + rng.normal(0, EPOCH_SD, EPOCHS)).tolist()
    child.config |= {"parent_run": "run0000", "parent_split_fingerprint": "s1", "heldout_trained_on": 0.0, **fields}
    child.summary = {}
    return simulated_sweep(runs)


def continued(rng: np.random.Generator) -> AnalysedSweep:
    """Return such a sweep without a defect: the same split, and a first value like that of the weights."""
    return _resumed(rng, jump=0.0)


def _split_changed(rng: np.random.Generator) -> AnalysedSweep:
    return _resumed(rng, 0.0, split_fingerprint="s2")


def _overlap(rng: np.random.Generator) -> AnalysedSweep:
    other = {"split": [0.7, 0.2, 0.1], "n_train": 779_878, "n_val": 222_822, "n_test": 111_412}
    return _resumed(rng, 0.0, split_fingerprint="s2", heldout_trained_on=None, **other)


def _jump(rng: np.random.Generator) -> AnalysedSweep:
    return _resumed(rng, 6 * EPOCH_SD)


def _steps_restart(rng: np.random.Generator) -> AnalysedSweep:
    analysed = simulated_sweep(simulate(Setting(N), rng))
    entry = analysed.ranked[0]
    points = tuple(
        point._replace(step=row % (len(entry.run.points) // 2)) for row, point in enumerate(entry.run.points)
    )
    twice = replace(entry, run=replace(entry.run, run_id="run0009", points=points))
    return replace(analysed, ranked=(twice, *analysed.ranked[1:]))


def _test_gt_val(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(Setting(N), rng)
    runs[3].summary["test/combined_acc"] = max(runs[3].values) + 0.015
    return simulated_sweep(runs)


def _not_checkpointed(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(Setting(N), rng)
    best = int(np.argmax(runs[5].values))
    runs[5].summary["checkpoint_epoch"] = best - 3 if best > 4 else best + 5
    return simulated_sweep(runs)


def _select_mismatch(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(MIXED, rng)
    for run in runs:
        run.config["select_by"] = "loss"
    return simulated_sweep(runs)


def _ranked_by_test(rng: np.random.Generator) -> AnalysedSweep:
    return simulated_sweep(simulate(MIXED, rng), metric=Metric("test/combined_acc", "maximize"))


def _label_sets(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(MIXED, rng)
    runs[2].config["snr_min_db"] = -20
    return simulated_sweep(runs)


def _space_changed(rng: np.random.Generator) -> AnalysedSweep:
    analysed = simulated_sweep(simulate(Setting(N), rng))
    before = {**analysed.config, "parameters": {**analysed.config["parameters"], "label_smoothing": {"value": 0.1}}}
    return replace(analysed, record=replace(analysed.record, updates=(SweepUpdate(None, None, before),)))


def _validations(rng: np.random.Generator) -> AnalysedSweep:
    """Return a sweep whose first runs are of a program that renewed no statistics of batch norm."""
    runs = simulate(MIXED, rng)
    for run in runs[3:]:
        run.config |= {"batch_norm_frames": 8192, "ema_decay": 0.0}
    return simulated_sweep(runs)


def _batch_norms(rng: np.random.Generator) -> AnalysedSweep:
    """Return a sweep on two kinds of GPU, of which one takes half a batch."""
    runs = simulate(MIXED, rng)
    for index, run in enumerate(runs):
        run.config |= {"model_type": "resnet18", "batch_size": 512, "micro_batch_size": "auto", "has_batch_norm": True}
        run.config["micro_batch_frames"] = 256 if index == 2 else 512
    return simulated_sweep(runs)


def _never_sampled(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(MIXED, rng)
    for run in runs:
        run.config["dropout"] = min(run.config["dropout"], 0.4)
    return simulated_sweep(runs)


def _zero_variance(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(MIXED, rng)
    for run in runs:
        run.config["curriculum"] = True
    return simulated_sweep(runs)


def _recommendation(rng: np.random.Generator) -> AnalysedSweep:
    claim = Claim(ClaimKind.RECOMMENDATION, "use max_lr 5e-2", parameter="max_lr", values=(5e-2,))
    return simulated_sweep(simulate(MIXED, rng), claims=(claim,), runs_total=N)


def _small_group(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(Setting(N), rng)
    for run in runs[1:]:
        run.config["curriculum"] = False
    best = int(np.argmax([max(run.values) for run in runs]))
    runs[0].config["curriculum"] = True
    runs[0].values = [value + 0.005 for value in runs[best].values]
    return simulated_sweep(runs)


def _unequal_n(rng: np.random.Generator) -> AnalysedSweep:
    """Return 24 runs that scatter and 6 better runs that do not; the maximum is among the 24."""
    runs = simulate(Setting(N), rng)
    for index, run in enumerate(runs):
        run.config["curriculum"] = index < 24
        level = 0.5 + (rng.normal(0, 0.005) if index < 24 else 0.011)
        run.values = (level + rng.normal(0, 0.001, EPOCHS)).tolist()
    runs[0].values = [0.52] * EPOCHS
    return simulated_sweep(runs)


def _censored(rng: np.random.Generator) -> AnalysedSweep:
    """Stop nearly all runs of one value early, and few of the others."""
    runs = simulate(Setting(N), rng)
    for run in runs:
        if rng.random() < (0.95 if run.config["snr_layer"] == "standard" else 0.1):
            run.values, run.cause = run.values[:5], Cause.EARLY_STOPPED
    return simulated_sweep(runs)


def _same_end(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(Setting(N, crash=0.2), rng)
    for run in runs[:8]:
        run.values, run.cause = run.values[:4], Cause.LOST
    return simulated_sweep(runs)


def _confounded(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(MIXED, rng)
    for run in runs:
        if rng.random() < 0.9:
            run.config["curriculum"] = run.config["snr_layer"] == "bottleneck_128"
    return simulated_sweep(runs)


def _duplicates(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(MIXED, rng)
    runs[7].config |= {name: runs[8].config[name] for name in ("max_lr", "dropout", "snr_layer", "curriculum")}
    return simulated_sweep(runs)


def _boundary(rng: np.random.Generator) -> AnalysedSweep:
    """Let performance rise with the learning rate up to the end of its range, by 8 sd of the runs in all."""

    def shift(config: Mapping[str, Any]) -> float:
        return 8 * RUN_SD * (np.log10(config["max_lr"]) + 5) / 3

    return simulated_sweep(simulate(replace(MIXED, shift=shift), rng))


def _infeasible(rng: np.random.Generator) -> AnalysedSweep:
    """Let nearly all runs fail above a learning rate that a third of the runs exceed."""
    runs = simulate(replace(MIXED, crash=0.05), rng)
    for run in runs:
        if run.config["max_lr"] > 10**-3 and rng.random() < 0.95:
            run.values, run.cause = run.values[: int(rng.integers(1, EPOCHS))], Cause.DIVERGED
    return simulated_sweep(runs)


def _impute(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(MIXED, rng)
    runs[0].cause = Cause.LOST
    return simulated_sweep(runs, {"method": "bayes", "early_terminate": HYPERBAND})


def _host(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(Setting(N, crash=0.1), rng)
    for index, run in enumerate(runs):
        run.host = f"gpu-{index % 3}"
        if run.host == "gpu-0" and rng.random() < 0.95:
            run.values, run.cause = run.values[: int(rng.integers(1, EPOCHS))], Cause.LOST
    return simulated_sweep(runs)


def _nan(rng: np.random.Generator) -> AnalysedSweep:
    runs = simulate(MIXED, rng)
    runs[4].values = runs[4].values[:2] + [float("nan")] * 10
    return simulated_sweep(runs, {"early_terminate": HYPERBAND})


PLANTED: Mapping[Rule, Callable[[np.random.Generator], AnalysedSweep]] = {
    Rule.SPLIT_CHANGED_ON_RESUME: _split_changed,
    Rule.HELDOUT_OVERLAP_BOUND: _overlap,
    Rule.RESUME_JUMP: _jump,
    Rule.STEPS_RESTART: _steps_restart,
    Rule.TEST_GT_VAL: _test_gt_val,
    Rule.PEAK_NOT_CHECKPOINTED: _not_checkpointed,
    Rule.SELECT_METRIC_MISMATCH: _select_mismatch,
    Rule.TEST_USED_FOR_RANKING: _ranked_by_test,
    Rule.LABEL_SETS_DIFFER: _label_sets,
    Rule.VALIDATIONS_DIFFER: _validations,
    Rule.BATCH_NORMS_DIFFER: _batch_norms,
    Rule.SPACE_CHANGED: _space_changed,
    Rule.NEVER_SAMPLED_VALUE: _never_sampled,
    Rule.ZERO_VARIANCE_PARAM: _zero_variance,
    Rule.RECOMMENDATION_OUTSIDE_DATA: _recommendation,
    Rule.GROUP_N_TOO_SMALL: _small_group,
    Rule.MAX_OF_UNEQUAL_N: _unequal_n,
    Rule.CENSORED_COMPARISON: _censored,
    Rule.SAME_END_EPOCH: _same_end,
    Rule.CONFOUNDED_PAIR: _confounded,
    Rule.DUPLICATE_CONFIGS: _duplicates,
    Rule.BEST_AT_BOUNDARY: _boundary,
    Rule.INFEASIBLE_REGION: _infeasible,
    Rule.IMPUTE_WORST: _impute,
    Rule.HOST_FAILURES: _host,
    Rule.NAN_NEVER_STOPPED: _nan,
}

# The subject that the rule has to name.
SUBJECTS: Mapping[Rule, str] = {
    Rule.SPLIT_CHANGED_ON_RESUME: f"run{N - 1:04d}",
    Rule.HELDOUT_OVERLAP_BOUND: f"run{N - 1:04d}",
    Rule.RESUME_JUMP: f"run{N - 1:04d}",
    Rule.STEPS_RESTART: "run0009",
    Rule.TEST_GT_VAL: "run0003",
    Rule.PEAK_NOT_CHECKPOINTED: "run0005",
    Rule.SELECT_METRIC_MISMATCH: "run0000",
    Rule.TEST_USED_FOR_RANKING: "simulated",
    Rule.LABEL_SETS_DIFFER: "run0002",
    Rule.VALIDATIONS_DIFFER: "run0002",
    Rule.BATCH_NORMS_DIFFER: "run0002",
    Rule.SPACE_CHANGED: "label_smoothing",
    Rule.NEVER_SAMPLED_VALUE: "dropout=0.5",
    Rule.ZERO_VARIANCE_PARAM: "curriculum",
    Rule.RECOMMENDATION_OUTSIDE_DATA: "max_lr=0.05",
    Rule.GROUP_N_TOO_SMALL: "curriculum",
    Rule.MAX_OF_UNEQUAL_N: "curriculum",
    Rule.CENSORED_COMPARISON: "snr_layer",
    Rule.SAME_END_EPOCH: "run0000",
    Rule.CONFOUNDED_PAIR: "curriculum",
    Rule.DUPLICATE_CONFIGS: "run0007",
    Rule.BEST_AT_BOUNDARY: "max_lr=0.01",
    Rule.INFEASIBLE_REGION: "max_lr",
    Rule.IMPUTE_WORST: "run0000",
    Rule.HOST_FAILURES: "gpu-0",
    Rule.NAN_NEVER_STOPPED: "run0004",
}
