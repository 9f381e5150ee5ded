"""The choice of a W&B and of the key for it."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from amc_sweeps.backend.choose import Backend, choose_backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.keys import CLOUD_URL, OLDER_CLOUD_URL
from amc_sweeps.backend.running_servers import ServerState, remove_server_state, running_servers, write_server_state

EMBEDDED_KEY = "amc-" + "a" * 40
CLOUD_KEY = "b" * 40


class _Health(BaseHTTPRequestHandler):
    """Answers /healthz as an embedded server, or with 404 as any other server."""

    server: _Server

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        if self.server.answer is None or self.path != "/healthz":
            self.send_error(404)
            return
        body = json.dumps(self.server.answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        return None


class _Server(HTTPServer):
    def __init__(self, answer: dict[str, str] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Health)
        self.answer = answer
        self.seen: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def servers() -> Iterator[type[_Server]]:
    started: list[_Server] = []

    class Started(_Server):
        def __init__(self, answer: dict[str, str] | None) -> None:
            super().__init__(answer)
            threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
            started.append(self)

    yield Started
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "nobody"), "AMC_STATE_DIR": str(tmp_path / "servers")}


def _running(servers: type[_Server], environ: Mapping[str, str], tmp_path: Path, name: str = "first") -> ServerState:
    server = servers({"service": "amc-sweep", "instance": name})
    key_file = tmp_path / f"{name}.key"
    key_file.write_text(EMBEDDED_KEY + "\n")
    state = ServerState(server.url, str(key_file), pid=1, data=str(tmp_path), instance=name)
    write_server_state(state, environ)
    return state


def test_a_running_embedded_server_is_found_with_its_key(
    servers: type[_Server], environ: dict[str, str], tmp_path: Path
) -> None:
    state = _running(servers, environ, tmp_path)
    backend = choose_backend(environ=environ)
    assert (backend.kind, backend.base_url, backend.api_key) == ("embedded", state.base_url, EMBEDDED_KEY)
    assert backend.environment() == {"WANDB_BASE_URL": state.base_url, "WANDB_API_KEY": EMBEDDED_KEY}


def test_a_key_is_never_shown(servers: type[_Server], environ: dict[str, str], tmp_path: Path) -> None:
    state = _running(servers, environ, tmp_path)
    backend = choose_backend(environ=environ)
    assert EMBEDDED_KEY not in repr(backend) + backend.announce() + backend.shell_prefix()
    assert backend.shell_prefix() == f'WANDB_BASE_URL={state.base_url} WANDB_API_KEY="$(cat {state.key_file})" '


def test_the_printed_line_has_a_key_for_a_server_without_one(
    servers: type[_Server], environ: dict[str, str], tmp_path: Path
) -> None:
    state = _running(servers, environ, tmp_path)
    write_server_state(replace(state, key_file=None), environ)
    assert choose_backend(environ=environ).shell_prefix().endswith(f"WANDB_API_KEY=amc-{'0' * 40} ")


def test_the_state_file_is_readable_by_its_owner_alone(environ: dict[str, str]) -> None:
    path = write_server_state(ServerState("http://127.0.0.1:9", None, 1, "data", "x"), environ)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_flag_wins_over_variable_wins_over_running_server_wins_over_login(
    servers: type[_Server], environ: dict[str, str], tmp_path: Path
) -> None:
    state = _running(servers, environ, tmp_path)
    by_variable = servers(None)
    (tmp_path / "nobody").mkdir()
    netrc = tmp_path / "nobody" / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login user password {CLOUD_KEY}\n")
    netrc.write_text(netrc.read_text() + f"machine api.wandb.ai login user password {CLOUD_KEY}\n")
    named = {**environ, "WANDB_BASE_URL": by_variable.url}
    assert choose_backend(environ=named, local=True).base_url == state.base_url
    assert choose_backend(environ=named, cloud=True).base_url == CLOUD_URL
    assert choose_backend(environ=named).base_url == by_variable.url
    assert choose_backend(environ=environ).base_url == state.base_url
    remove_server_state(state, environ)
    login = choose_backend(environ=environ)
    assert (login.kind, login.source) == ("cloud", "your W&B login")


@pytest.mark.parametrize(
    ("machine", "named", "expected"),
    [
        ("api.forge.coreweave.com", None, CLOUD_URL),
        ("api.wandb.ai", None, CLOUD_URL),  # a login from before the cloud's new name
        ("api.wandb.ai", OLDER_CLOUD_URL, OLDER_CLOUD_URL),
        ("api.forge.coreweave.com", OLDER_CLOUD_URL, None),  # the client does not find it either
    ],
)
def test_a_login_is_found_where_the_client_finds_it(
    environ: dict[str, str], tmp_path: Path, machine: str, named: str | None, expected: str | None
) -> None:
    file = tmp_path / "logins"
    file.write_text(f"machine {machine} login user password {CLOUD_KEY}\n")
    given = {**environ, "NETRC": str(file), **({"WANDB_BASE_URL": named} if named else {})}
    if expected is None:
        with pytest.raises(BackendError, match=r"no key for https://api\.wandb\.ai"):
            choose_backend(environ=given)
    else:
        backend = choose_backend(environ=given)
        assert (backend.kind, backend.base_url, backend.shell_prefix()) == ("cloud", expected, "")


def test_the_cloud_is_the_default_of_the_wandb_client() -> None:
    from wandb.sdk.lib import urls

    assert urls.DEFAULT_BASE_URL == CLOUD_URL
    assert f"https://{urls.FORGE_HOSTS['forge.coreweave.com']}" == OLDER_CLOUD_URL


def test_with_nothing_given_the_error_names_the_three_ways(environ: dict[str, str]) -> None:
    with pytest.raises(BackendError) as error:
        choose_backend(environ=environ)
    for way in ("amc-sweep serve", "wandb login", "--base-url"):
        assert way in str(error.value)


def test_a_state_file_of_a_stopped_or_replaced_server_is_ignored(
    servers: type[_Server], environ: dict[str, str], tmp_path: Path
) -> None:
    state = _running(servers, environ, tmp_path)
    write_server_state(replace(state, instance="an earlier server on this port"), environ)
    assert running_servers(environ) == []
    write_server_state(ServerState("http://127.0.0.1:9", None, 1, "data", "dead"), environ)
    assert running_servers(environ) == []


def test_two_running_servers_are_listed(servers: type[_Server], environ: dict[str, str], tmp_path: Path) -> None:
    states = [_running(servers, environ, tmp_path, name) for name in ("first", "second")]
    with pytest.raises(BackendError) as error:
        choose_backend(environ=environ)
    assert all(f"--base-url {state.base_url}" in str(error.value) for state in states)


def test_a_key_of_another_server_is_not_sent_to_an_embedded_server(
    servers: type[_Server], environ: dict[str, str]
) -> None:
    server = servers({"service": "amc-sweep", "instance": "elsewhere"})
    with pytest.raises(BackendError, match="not the key of the embedded server"):
        choose_backend(base_url=server.url, environ={**environ, "WANDB_API_KEY": CLOUD_KEY})
    assert all("Authorization" not in headers for headers in server.seen)


@pytest.mark.parametrize("flags", [{"cloud": True}, {"base_url": "https://api.wandb.ai"}])
def test_an_embedded_key_is_not_sent_to_the_cloud(environ: dict[str, str], flags: dict[str, object]) -> None:
    with pytest.raises(BackendError, match="was not sent"):
        choose_backend(environ={**environ, "WANDB_API_KEY": EMBEDDED_KEY}, **flags)  # type: ignore[arg-type]


def test_an_embedded_server_elsewhere_takes_its_key_from_the_environment(
    servers: type[_Server], environ: dict[str, str]
) -> None:
    server = servers({"service": "amc-sweep", "instance": "elsewhere"})
    backend = choose_backend(base_url=server.url, environ={**environ, "WANDB_API_KEY": EMBEDDED_KEY})
    assert (backend.kind, backend.api_key) == ("embedded", EMBEDDED_KEY)
    with pytest.raises(BackendError, match="needs its key"):
        choose_backend(base_url=server.url, environ=environ)


def test_an_address_without_a_server_is_named_in_the_error(environ: dict[str, str]) -> None:
    with pytest.raises(BackendError, match=r"no server answers at http://127\.0\.0\.1:9 "):
        choose_backend(base_url="http://127.0.0.1:9", environ=environ)
    for url in ("localhost:8418", "http://[", "http://host:99999", "ftp://host"):
        with pytest.raises(BackendError, match="is not an address"):
            choose_backend(base_url=url, environ=environ)


def test_settings_and_netrc_are_only_read(tmp_path: Path, environ: dict[str, str]) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine wandb.example.org login user password {CLOUD_KEY}\n")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (netrc, config / "settings")}
    backend = choose_backend(environ={**environ, "WANDB_CONFIG_DIR": str(config), "NETRC": str(netrc)})
    assert backend == Backend("server", "https://wandb.example.org", "your W&B login")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
