"""A wandb client that lacks a private part is named; test_operating_commands.py uses the parts of the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from amc_analysis.reading.wandb_private import ClientVersionError, attributes, page_address, send_query


def test_a_client_without_a_needed_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClientVersionError, match=rf"wandb {wandb.__version__} has no .*execute_graphql.*setup.cfg"):
        send_query(SimpleNamespace(), "{ viewer { id } }")
    monkeypatch.setattr(wandb, "Settings", SimpleNamespace)
    with pytest.raises(ClientVersionError, match=r"has no Settings.app_url"):
        page_address("https://api.wandb.ai")


def test_whatever_a_query_fails_with_is_an_error_of_wandb() -> None:
    def execute_graphql(_document: str, _variables: dict[str, Any]) -> dict[str, Any]:
        raise ValueError('Cannot query field "host" on type "Run"')

    api = SimpleNamespace(_service_api=SimpleNamespace(execute_graphql=execute_graphql))
    with pytest.raises(wandb.Error, match="Cannot query field"):
        send_query(api, "{ x }", sweep="s")
    assert attributes(api) == {}
