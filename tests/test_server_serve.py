"""amc-sweep serve as a command: what it says, what it leaves for others, what it refuses."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from embedded_server import EmbeddedServer

from amc_agents.commands.serve import serve_command
from amc_sweeps.backend import running_servers


def refused(*arguments: str) -> str:
    """Return what the command says when it does not start."""
    result = CliRunner().invoke(serve_command, list(arguments))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


def test_a_server_is_found_by_its_state_file_and_takes_it_away_at_its_end(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "data").start()
    state_folder = tmp_path / "data.state"
    (state,) = running_servers({"AMC_STATE_DIR": str(state_folder)})
    assert (state.base_url, state.key_file) == (server.base_url, str(tmp_path / "data" / "api.key"))
    (file,) = state_folder.glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert server.key not in file.read_text()
    said = server.log.read_text()
    assert f"WANDB_BASE_URL={server.base_url}" in said
    assert "$(cat " in said
    assert server.key not in said
    assert server.stop() == 0
    assert list(state_folder.glob("*.json")) == []
    log = (tmp_path / "data" / "server.log").read_text()
    assert server.key not in log
    assert any(json.loads(line).get("path") == "/healthz" for line in log.splitlines())


def test_a_port_in_use_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = refused("--data", str(tmp_path / "data"), "--port", str(taken.getsockname()[1]))
    assert "in use" in said
    assert "--port" in said


def test_a_folder_that_cannot_be_written_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused("--data", str(tmp_path / "file" / "data"), "--port", "0")
    assert "cannot be written" in said
    assert "--data" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    assert "cannot be written" in refused("--data", str(tmp_path / "data"), "--port", "0")


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data"):
        said = refused("--data", str(tmp_path / "data"), "--port", "0")
    assert "another server" in said


def test_no_auth_is_for_loopback_only(tmp_path: Path) -> None:
    said = refused("--data", str(tmp_path / "data"), "--port", "0", "--no-auth", "--host", "0.0.0.0")
    assert "127.0.0.1" in said
    assert not (tmp_path / "data").exists()


def test_an_address_that_is_not_this_machines_is_refused(tmp_path: Path) -> None:
    assert "cannot listen" in refused("--data", str(tmp_path / "data"), "--port", "0", "--host", "203.0.113.1")
