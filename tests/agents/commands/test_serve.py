"""amc-sweep serve as a command: its output, its files, and its refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from embedded_server import EmbeddedServer

from amc_agents.commands.serve import serve_command
from amc_sweeps.backend.choose import choose_backend
from amc_sweeps.backend.errors import UntrustedError
from amc_sweeps.backend.running_servers import running_servers


def refused(*arguments: str) -> str:
    """Return the message of a command that does not start."""
    result = CliRunner().invoke(serve_command, list(arguments))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


def test_a_server_writes_a_state_file_and_removes_it_at_its_end(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "data").start()
    state_folder = tmp_path / "data.state"
    (state,) = running_servers({"AMC_STATE_DIR": str(state_folder)})
    assert (state.base_url, state.key_file) == (server.base_url, str(tmp_path / "data" / "api.key"))
    (file,) = state_folder.glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert server.key not in file.read_text()
    message = server.log.read_text()
    assert f"WANDB_BASE_URL={server.base_url}" in message
    assert "$(cat " in message
    assert server.key not in message
    assert server.stop() == 0
    assert list(state_folder.glob("*.json")) == []
    log = (tmp_path / "data" / "server.log").read_text()
    assert server.key not in log
    assert any(json.loads(line).get("path") == "/healthz" for line in log.splitlines())


def test_a_port_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        message = refused("--data", str(tmp_path / "data"), "--port", str(taken.getsockname()[1]))
    assert "in use" in message
    assert "--port" in message


def test_a_folder_that_cannot_be_written_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused("--data", str(tmp_path / "file" / "data"), "--port", "0")
    assert "cannot be written" in message
    assert "--data" in message


@pytest.mark.parametrize("name", ["server.log", "lock", "amc.sqlite3", "amc.sqlite3-wal", "api.key"])
def test_a_folder_in_place_of_a_file_is_refused_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert str(tmp_path) in refused("--data", str(tmp_path), "--port", "0")


def test_a_file_in_place_of_the_folder_of_blobs_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("")
    assert "blobs" in refused("--data", str(tmp_path), "--port", "0")


def test_a_link_to_itself_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be written" in refused("--data", str(tmp_path / "loop"), "--port", "0")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    assert "cannot be written" in refused("--data", str(tmp_path / "data"), "--port", "0")


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data"):
        message = refused("--data", str(tmp_path / "data"), "--port", "0")
    assert "another server" in message


def test_no_auth_is_for_loopback_only(tmp_path: Path) -> None:
    message = refused("--data", str(tmp_path / "data"), "--port", "0", "--no-auth", "--host", "0.0.0.0")
    assert "127.0.0.1" in message
    assert not (tmp_path / "data").exists()


def test_the_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    assert "cannot listen" in refused("--data", str(tmp_path / "data"), "--port", "0", "--host", "203.0.113.1")


def _self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed to make a certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls_uses_the_given_certificate(tmp_path: Path) -> None:
    cert, key = _self_signed(tmp_path)
    options = ("--tls-cert", str(cert), "--tls-key", str(key))
    with EmbeddedServer(tmp_path / "data", options=options, trusted=cert) as server:
        assert server.base_url.startswith("https://127.0.0.1:")
        assert server.graphql("{ viewer { username } }") == {"viewer": {"username": "local"}}
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(f"{server.base_url}/healthz", timeout=5)
        environ = {"AMC_STATE_DIR": str(tmp_path / "data.state")}
        for ways in ({"base_url": server.base_url}, {"local": True}, {}):
            with pytest.raises(UntrustedError, match="SSL_CERT_FILE"):
                choose_backend(environ=environ, **ways)


def test_no_other_user_may_read_a_servers_files_in_an_existing_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    with EmbeddedServer(data):
        open_to_others = [path for path in data.rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    cert, key = _self_signed(tmp_path)
    assert "belong together" in refused("--data", str(tmp_path / "data"), "--tls-cert", str(cert))
    (tmp_path / "other").mkdir()
    other, _ = _self_signed(tmp_path / "other")
    message = refused("--data", str(tmp_path / "data"), "--tls-cert", str(other), "--tls-key", str(key))
    assert "TLS cannot be set up" in message
    assert not (tmp_path / "data").exists()


def _in_background(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    entry = "from amc_agents.commands.serve import serve_command; serve_command()"
    command = [sys.executable, "-c", entry, "--data", str(folder / "data"), "--background", *options]
    env = EmbeddedServer.process_environment() | {"AMC_STATE_DIR": str(folder / "state")}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_a_background_server_prints_its_address_and_ends_by_its_pid(tmp_path: Path) -> None:
    started = _in_background(tmp_path, "--port", "0")
    assert started.returncode == 0, started.stderr
    (state,) = running_servers({"AMC_STATE_DIR": str(tmp_path / "state")})
    try:
        assert state.base_url in started.stderr
        assert f"kill {state.pid} ends it" in started.stderr
        assert "$(cat " in started.stderr
        assert (tmp_path / "data" / "api.key").read_text().strip() not in started.stderr
        assert os.getsid(state.pid) != os.getsid(0), "it must survive the end of the terminal"
        second = _in_background(tmp_path, "--port", "0")
        assert (second.returncode, "another server" in second.stderr) == (2, True)
    finally:
        os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{state.pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert list((tmp_path / "state").glob("*.json")) == []
    assert (tmp_path / "data" / "background.log").read_text() == ""
