"""Who gets in, what may be uploaded where, and that nothing leaves the data folder."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from in_process_server import KEY, GraphqlRefused, InProcessServer

from amc_server.auth import SIGNATURE_LIFETIME_S, Gate, KeyFileError, read_or_make_key
from amc_server.errors import Refused
from amc_server.files import check_name

GATE = Gate(KEY, b"secret")
VIEWER = json.dumps({"query": "{ viewer { id } }"}).encode()
CREATE_FILES = """mutation CreateRunFiles($files: [String!]!) { createRunFiles(
    input: {entityName: "local", projectName: "p", runName: "r", files: $files}) {
        runID uploadHeaders files { name uploadUrl } } }"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    running.begin("r")
    yield running
    running.close()


def upload(server: InProcessServer, name: str, content: bytes) -> int:
    files = server.graphql(CREATE_FILES, files=[name])["createRunFiles"]["files"]
    return server.request("PUT", urlsplit(files[0]["uploadUrl"]).path, content, auth=False).status


def test_the_key_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.key"
    key = read_or_make_key(path)
    assert key.startswith("amc-")
    assert len(key) == 44
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_or_make_key(path) == key


def test_a_key_file_that_others_may_read_or_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "api.key"
    path.write_text(KEY)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_or_make_key(path)
    path.write_text("hunter2")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="does not hold a key") as refusal:
        read_or_make_key(path)
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(KeyFileError, match="cannot be written"):
        read_or_make_key(tmp_path / "no" / "folder" / "api.key")


@pytest.mark.parametrize(
    "header",
    [None, "", "Basic", "Basic ???", "Basic YXBpOg==", f"Basic {KEY}", f"Digest {KEY}", "Bearer nope", "Basic \xff"],
)
def test_nothing_but_the_key_opens_the_door(header: str | None) -> None:
    assert not GATE.admits_header(header)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/graphql", VIEWER),
        ("POST", "/files/local/p/r/file_stream", b"{}"),
        ("GET", "/files/local/p/r/x.txt", b""),
        ("GET", "/", b""),
        ("GET", "/local/p", b""),
        ("GET", "/local/p/runs/r", b""),
        ("GET", "/local/p/sweeps/s", b""),
    ],
)
def test_every_door_asks_for_the_key(server: InProcessServer, method: str, path: str, body: bytes) -> None:
    assert server.request(method, path, body, auth=False).status == 401
    assert server.request(method, path, body).status != 401


def test_health_needs_no_key_and_says_who_answers(server: InProcessServer) -> None:
    reply = server.request("GET", "/healthz", auth=False)
    assert reply.status == 200
    assert reply.json()["service"] == "amc-sweep"
    assert reply.json()["instance"] == "test"
    assert KEY not in reply.body.decode()


def test_a_browser_logs_in_once_and_carries_a_cookie_that_is_not_the_key(server: InProcessServer) -> None:
    reply = server.request("GET", f"/local/p?key={KEY}", auth=False)
    assert (reply.status, reply.headers["location"]) == (303, "/local/p")
    cookie = reply.headers["set-cookie"]
    assert KEY not in cookie
    assert "httponly" in cookie.lower()
    assert "samesite=lax" in cookie.lower()
    sent = {"cookie": cookie.split(";")[0]}
    assert server.request("GET", "/local/p", headers=sent, auth=False).status == 200
    assert server.request("POST", "/graphql", VIEWER, headers=sent, auth=False).status == 401
    assert server.request("GET", "/local/p", headers={"cookie": "amc_session=x"}, auth=False).status == 401
    assert server.request("GET", "/local/p?key=wrong", auth=False).status == 401


def test_an_upload_url_is_good_for_one_file_for_a_day() -> None:
    token = GATE.sign_upload(run=3, name="a/b.txt", now=1000.0)
    assert GATE.read_upload(token, now=1000.0 + SIGNATURE_LIFETIME_S - 1) == (3, "a/b.txt")
    assert GATE.read_upload(token, now=1000.0 + SIGNATURE_LIFETIME_S + 1) is None
    assert Gate(KEY, b"other").read_upload(token, now=1000.0) is None
    payload, signature = token.split(".")
    assert GATE.read_upload(f"{payload}A.{signature}", now=1000.0) is None
    for forged in ("", ".", "x", f"{payload}.", f".{signature}"):
        assert GATE.read_upload(forged, now=1000.0) is None


def test_a_file_goes_up_and_comes_down_and_stays_in_the_data_folder(server: InProcessServer) -> None:
    assert upload(server, "media/plot #1.png", b"bytes") == 200
    assert upload(server, "media/plot #1.png", b"newer") == 200
    reply = server.request("GET", "/files/local/p/r/media/plot #1.png")
    assert (reply.status, reply.body) == (200, b"newer")
    assert reply.headers["content-disposition"].startswith("attachment")
    blobs = [path for path in (server.folder / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 1


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b", "a\0b", "..", "a\\..\\b", "x" * 1025])
def test_a_name_that_leaves_the_folder_is_refused(server: InProcessServer, name: str) -> None:
    with pytest.raises(Refused):
        check_name(name)
    with pytest.raises(GraphqlRefused):
        server.graphql(CREATE_FILES, files=[name])


@pytest.mark.parametrize("path", ["/files/local/p/r/../../../api.key", "/files/local/p/r/nothere", "/storage/x.y"])
def test_what_is_not_there_is_not_given(server: InProcessServer, path: str) -> None:
    method = "PUT" if path.startswith("/storage") else "GET"
    assert server.request(method, path).status in (403, 404)


def test_a_deleted_run_takes_its_files_with_it(server: InProcessServer) -> None:
    upload(server, "x.txt", b"x")
    run = server.graphql('{ project(name: "p") { run(name: "r") { id } } }')["project"]["run"]["id"]
    server.graphql("mutation D($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }", id=run)
    assert [path for path in (server.folder / "blobs").rglob("*") if path.is_file()] == []


def test_a_body_that_is_too_large_is_refused(server: InProcessServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amc_server.app.MAX_POST_BYTES", 100)
    reply = server.request("POST", "/files/local/p/r/file_stream", b"{" + b" " * 200 + b"}")
    assert reply.status == 413


def test_pages_show_what_strangers_wrote_as_text(server: InProcessServer) -> None:
    server.begin("r", {"<script>alert(1)</script>": "<img onerror=x>"})
    server.post("r", files={"output.log": {"offset": 0, "content": ["<script>alert(2)</script>"]}})
    page = server.request("GET", "/local/p/runs/r")
    assert page.status == 200
    assert b"<script>" not in page.body
    assert b"<img" not in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_no_printed_link_is_dead(server: InProcessServer) -> None:
    sweep = server.create_sweep("method: grid\nmetric: {name: acc, goal: maximize}\nparameters: {a: {values: [1]}}\n")
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(run)
    server.log(run, 0.1, 0.9, 0.3)
    for path in ("/", "/local/p", "/local/p/workspace", "/authorize"):
        assert server.request("GET", path).status == 200
    page = server.request("GET", f"/local/p/sweeps/{sweep}")
    assert page.status == 200
    assert b"0.9" in page.body
    page = server.request("GET", f"/local/p/runs/{run}")
    assert b"polyline" in page.body
    for path in ("/local/nothere", "/local/p/runs/nothere", "/local/p/sweeps/nothere", "/team/p"):
        assert server.request("GET", path, headers={"accept": "text/html"}).status == 404
