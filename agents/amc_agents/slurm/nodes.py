"""Which nodes of a cluster to leave out: those that lose runs which do well on other nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amc_sweeps.number_formats import counted
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.slurm_jobs import SlurmJob

FEWEST_FAILURES = 3
# What a node may have caused. The configuration explains the other failures.
_BY_NODE = frozenset(
    {Cause.NODE_FAILURE, Cause.ENVIRONMENT_ERROR, Cause.LOST, Cause.KILLED_BY_SIGNAL, Cause.ERROR, Cause.DATA_ERROR}
)


@dataclass(frozen=True)
class BadNode:
    """A node that ``--exclude`` should name, and why."""

    node: str
    because: str


def nodes_to_exclude(ends: Sequence[tuple[str | None, Cause]], jobs: Sequence[SlurmJob]) -> tuple[BadNode, ...]:
    """Return the nodes to leave out: those that failed as Slurm says, and those where mostly runs fail.

    Runs must fail there three times, in more than half of their ends, and at more than twice the rate of elsewhere, for
    causes that a node can have.

    Args:
        ends: host and cause of every run that has ended or runs.
        jobs: Slurm's records of the sweep's jobs; without any the hosts are no nodes of a cluster.
    """
    if not jobs:
        return ()
    bad = {job.nodes: job.words for job in jobs if job.cause == "node_failure" and job.nodes}
    ended = [(_node(host), cause) for host, cause in ends if host is not None and cause is not Cause.RUNNING]
    for node in sorted({node for node, _ in ended}):
        here = [cause in _BY_NODE for other, cause in ended if other == node]
        elsewhere = [cause in _BY_NODE for other, cause in ended if other != node]
        rate_elsewhere = sum(elsewhere) / len(elsewhere) if elsewhere else 1.0
        if sum(here) >= FEWEST_FAILURES and sum(here) / len(here) > max(0.5, 2 * rate_elsewhere):
            others = f"{sum(elsewhere)} of {len(elsewhere)} elsewhere"
            bad.setdefault(node, f"{sum(here)} of {counted(len(here), 'run')} failed on it, {others}")
    return tuple(BadNode(node, because) for node, because in sorted(bad.items()))


def _node(host: str) -> str:
    """Return the name that Slurm usually has for a host: its first label."""
    return host.partition(".")[0]
