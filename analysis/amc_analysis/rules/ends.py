"""How runs ended: many in one epoch or on one host, and how the search counted them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby

from amc_analysis.effects.statistics import fisher_p
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.rules.lookups import number_in
from amc_sweeps.grammar.hyperband import bands
from amc_sweeps.number_formats import counted, listed
from amc_sweeps.runs.causes import CENSORED, CLIENT_STOP_CODE, ENDED_WELL, FAILURES, Cause
from amc_sweeps.runs.crashed_runs import Policy, policy_of_record
from amc_sweeps.runs.evidence import hyperband_of
from amc_sweeps.runs.ranked_run import RankedRun

SAME_END_LEAST = 4  # runs
SAME_END_NEAR = 3  # epochs before and after, in which runs end as often by chance
CHANCE = 0.01  # over all epochs, or all hosts
HOST_LEAST = 3  # failures
NAN_LEAST = 3  # logged values in a row that are not finite


def same_end_epoch(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report an epoch in which many more runs ended for an unknown reason than in the epochs around it.

    Runs whose cause is known are not counted: an exit code, a NaN, a line in the log, a stop by Hyperband or a person.
    Neither are runs that came as far as complete runs do.
    """
    whole = Counter(entry.epochs for entry in analysed.ranked if entry.cause is Cause.COMPLETED and entry.epochs)
    unexplained = [entry for entry in analysed.ranked if entry.epochs and _is_unexplained(entry, whole)]
    ends = Counter(entry.epochs for entry in unexplained if entry.epochs)
    for epoch, count in ends.items():
        around = range(max(1, epoch - SAME_END_NEAR), epoch + SAME_END_NEAR + 1)
        near = sum(ends[at] for at in around)
        if count < SAME_END_LEAST or whole[epoch] >= count:
            continue
        from scipy.special import bdtrc

        p = min(1.0, len(ends) * float(bdtrc(count - 1, near, 1 / len(around))))
        if p >= CHANCE:
            continue
        runs = [entry for entry in unexplained if entry.epochs == epoch]
        reason = _reason(analysed, epoch, runs)
        yield Finding(
            rule=Rule.SAME_END_EPOCH,
            severity=Severity.WARNING,
            subjects=tuple(entry.run.run_id for entry in runs),
            numbers={"epoch": epoch, "runs": count, "near": near, "p_corrected": p},
            evidence=f"{count} runs ended in epoch {epoch} for an unknown reason, {near - count} in the "
            f"{len(around) - 1} epochs around it{reason}: {listed([entry.run.run_id for entry in runs])}.",
            consequence="Crashes happen at random epochs, so something stopped these runs, such as a Hyperband band or "
            "the warmup. Do not count them as crashed or bad until you know the reason.",
        )


def host_failures(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a host whose runs failed more often than those of the other hosts, by Fisher's exact test."""
    ended = [entry for entry in analysed.ranked if entry.run.host and entry.cause is not Cause.RUNNING]
    by_host: dict[str, list[RankedRun]] = {}
    for entry in ended:
        by_host.setdefault(str(entry.run.host), []).append(entry)
    if len(by_host) < 2:
        return
    all_failures = sum(entry.cause in FAILURES for entry in ended)
    for host, runs in by_host.items():
        failures = sum(entry.cause in FAILURES for entry in runs)
        if failures < HOST_LEAST:
            continue
        p = min(1.0, len(by_host) * fisher_p(failures, len(runs), all_failures, len(ended)))
        if p >= CHANCE:
            continue
        elsewhere = (all_failures - failures, len(ended) - len(runs))
        yield Finding(
            rule=Rule.HOST_FAILURES,
            severity=Severity.WARNING,
            subjects=(host,),
            numbers={
                "failures": failures,
                "ended": len(runs),
                "failures_elsewhere": elsewhere[0],
                "ended_elsewhere": elsewhere[1],
                "p_corrected": p,
            },
            evidence=f"{failures} of {len(runs)} runs on {host} failed, {elsewhere[0]} of {elsewhere[1]} on "
            "other hosts.",
            consequence=f"The machine is the likely cause. Stop using {host}, and do not count its failures against "
            "any parameter value.",
        )


def impute_worst(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a Bayesian search that counted every run that failed or was cut short as the worst result."""
    config, recorded = analysed.config, analysed.record.crashed_runs
    cut = [entry for entry in analysed.ranked if entry.cause in FAILURES or entry.cause in CENSORED]
    if policy_of_record(config, recorded) is not Policy.WORST or not cut:
        return
    metric = config.get("metric")
    setting = "no impute, which means worst" if recorded is None else "--crashed-runs worst"
    if isinstance(metric, Mapping) and metric.get("impute") == "worst":
        setting = "impute: worst"
    yield Finding(
        rule=Rule.IMPUTE_WORST,
        severity=Severity.WARNING,
        subjects=tuple(entry.run.run_id for entry in cut),
        numbers={"runs": len(cut), "of": len(analysed.ranked), "impute": "worst"},
        evidence=f"The method is bayes with {setting}; {len(cut)} of {counted(len(analysed.ranked), 'run')} failed or "
        f"{'was' if len(cut) == 1 else 'were'} cut short.",
        consequence="The search counted every such run as the worst result and avoided similar configurations. Write "
        "impute: best for W&B's servers, and no impute for amc-sweep's own, which then goes by the cause of each end.",
    )


def nan_never_stopped(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a run that logged values that are not finite and went on."""
    early = hyperband_of(analysed.config)
    for entry in analysed.ranked:
        if len(entry.run.points) - len(entry.run.curve) < NAN_LEAST:
            continue
        finite = [math.isfinite(point.value) for point in entry.run.points]
        longest = max((len(list(run)) for is_finite, run in groupby(finite) if not is_finite), default=0)
        if longest < NAN_LEAST:
            continue
        lowest = bands(early)[0] if early is not None and bands(early) else None
        beyond = lowest is not None and sum(finite) < lowest
        hyperband = f" It never reached Hyperband's first band at {lowest} finite values." if beyond else ""
        yield Finding(
            rule=Rule.NAN_NEVER_STOPPED,
            severity=Severity.WARNING,
            subjects=(entry.run.run_id,),
            numbers={"not_finite": len(finite) - sum(finite), "in_a_row": longest, "finite": sum(finite)},
            evidence=f"{entry.run.run_id} logged {longest} values of {analysed.metric.name} in a row that are not "
            f"finite, and went on.{hyperband}",
            consequence="Hyperband counts finite values only and never stops such a run. Let the trial end itself when "
            "a loss is not finite.",
        )


def _is_unexplained(entry: RankedRun, whole: Counter[int]) -> bool:
    """Return whether nothing on record says why a run ended before its last epoch.

    Args:
        entry: the run.
        whole: the epochs of the runs that completed, which stand in for a number of planned epochs.
    """
    planned = entry.epochs_planned or max(whole, default=math.inf)
    if (
        (entry.epochs or 0) >= planned
        or entry.cause in ENDED_WELL
        or entry.cause in {Cause.RUNNING, Cause.NODE_FAILURE}
    ):
        return False
    has_own_code = entry.run.exit_code not in {None, 0, CLIENT_STOP_CODE}
    return not has_own_code and (entry.cause in {Cause.LOST, Cause.UNKNOWN} or entry.diagnosis.confidence == "guess")


def _reason(analysed: AnalysedSweep, epoch: int, runs: list[RankedRun]) -> str:
    """Return a band or a warmup that ends at about this epoch, as the end of a sentence."""
    early = hyperband_of(analysed.config)
    near = [band for band in (bands(early) if early is not None else ()) if 0 <= epoch - band <= 1]
    if near:
        return f", at Hyperband's band {near[0]}"
    warmups = [number_in(entry.run.config, "warmup_epochs", "warmup") or 0.0 for entry in runs]
    if sum(warmup >= epoch for warmup in warmups) > len(runs) / 2:
        return ", most of them in their warmup"
    return ""
