"""Which nodes are proposed for --exclude."""

from __future__ import annotations

from amc_agents.slurm.nodes import BadNode, nodes_to_exclude
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.slurm_jobs import SlurmJob

COMPLETED = SlurmJob("1_0", "1", "amc-a", "COMPLETED", "gpu-01", 0)
GOOD = [("gpu-01.cluster", Cause.COMPLETED)] * 9 + [("gpu-01.cluster", Cause.ERROR)]


def test_a_node_on_which_most_runs_fail_is_proposed() -> None:
    ends = [*GOOD, *[("gpu-02.cluster", Cause.KILLED_BY_SIGNAL)] * 3, ("gpu-02.cluster", Cause.RUNNING)]
    assert nodes_to_exclude(ends, [COMPLETED]) == (BadNode("gpu-02", "3 of 3 runs failed on it, 1 of 10 elsewhere"),)


def test_a_node_that_failed_is_proposed() -> None:
    failed = SlurmJob("1_1", "2", "amc-a", "NODE_FAIL", "gpu-03", 1)
    assert nodes_to_exclude(GOOD, [COMPLETED, failed]) == (BadNode("gpu-03", "Slurm job 1_1 on gpu-03: NODE_FAIL"),)


def test_nodes_are_not_blamed_for_configurations_or_for_what_happens_everywhere() -> None:
    diverged = [("gpu-02", Cause.DIVERGED)] * 5
    assert nodes_to_exclude([*GOOD, *diverged], [COMPLETED]) == ()
    everywhere = [(f"gpu-0{node}", Cause.ERROR) for node in (1, 2) for _ in range(5)]
    assert nodes_to_exclude(everywhere, [COMPLETED]) == ()
    alone = [("gpu-01", Cause.ERROR)] * 5
    assert nodes_to_exclude(alone, [COMPLETED]) == (), "with one node there is nothing to compare"
    assert nodes_to_exclude([*GOOD, ("gpu-02", Cause.ERROR), ("gpu-02", Cause.ERROR)], [COMPLETED]) == ()
    assert nodes_to_exclude([*GOOD, *[("gpu-02", Cause.ERROR)] * 3], []) == (), "without Slurm a host is no node"
