"""torch.compile with a backend that needs no compiler and notes every graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx import GraphModule


def capture_graphs(monkeypatch: pytest.MonkeyPatch, backend: str = "eager") -> list[GraphModule]:
    """Return the list of all graphs that torch.compile will capture in this test.

    Args:
        monkeypatch: of the test.
        backend: ``eager`` runs a graph as it is; ``aot_eager`` runs the graphs that a compiler gets, of the forward and
            of the backward pass, without in-place operators.
    """
    graphs: list[GraphModule] = []
    compile_, run = torch.compile, torch._dynamo.lookup_backend(backend)

    def note(graph: GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return run(graph, inputs)

    monkeypatch.setattr(
        torch, "compile", lambda call, **options: compile_(call, **{**options, "mode": None, "backend": note})
    )
    return graphs


def input_shapes(graph: GraphModule) -> list[tuple[int, ...]]:
    """Return the shapes of a graph's inputs; weights are inputs, too."""
    values = [node.meta.get("example_value") for node in graph.graph.nodes if node.op == "placeholder"]
    return [tuple(value.shape) for value in values if isinstance(value, torch.Tensor)]
