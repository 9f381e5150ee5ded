"""Access, signed uploads, and that no file lies outside the data folder."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from in_process_server import KEY, GraphqlRefused, InProcessServer
from itsdangerous import TimestampSigner

from amc_server.app import signing_secret
from amc_server.auth import COOKIE_LIFETIME_S, SIGNATURE_LIFETIME_S, Gate, KeyFileError, read_or_make_key
from amc_server.errors import Refused
from amc_server.store.blobs import check_name

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


def test_the_key_is_made_once_and_only_this_user_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "api.key"
    key = read_or_make_key(path)
    assert key.startswith("amc-")
    assert len(key) == 44
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_or_make_key(path) == key


def test_a_key_file_that_others_may_read_or_without_a_key_is_refused(tmp_path: Path) -> None:
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
def test_a_header_without_the_key_is_not_admitted(header: str | None) -> None:
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
        ("GET", "/local/p/sweeps/s/data", b""),
    ],
)
def test_every_endpoint_asks_for_the_key(server: InProcessServer, method: str, path: str, body: bytes) -> None:
    assert server.request(method, path, body, auth=False).status == 401
    assert server.request(method, path, body).status != 401


def test_health_needs_no_key_and_names_the_server(server: InProcessServer) -> None:
    reply = server.request("GET", "/healthz", auth=False)
    assert reply.status == 200
    assert reply.json()["service"] == "amc-sweep"
    assert reply.json()["instance"] == "test"
    assert KEY not in reply.body.decode()


def test_a_browser_logs_in_once_and_then_sends_a_cookie_that_is_not_the_key(server: InProcessServer) -> None:
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


def test_a_browser_that_logs_in_with_the_password_box_gets_the_cookie_too(server: InProcessServer) -> None:
    reply = server.request("GET", "/")
    assert "httponly" in reply.headers["set-cookie"].lower()
    sent = {"cookie": reply.headers["set-cookie"].split(";")[0]}
    second = server.request("GET", "/", headers=sent, auth=False)
    assert (second.status, "set-cookie" in second.headers) == (200, False)
    behind_tls = server.request("GET", "/", headers={"x-forwarded-proto": "https"})
    assert "secure" in behind_tls.headers["set-cookie"].lower()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://server.test:81", ""])
def test_a_page_of_another_site_cannot_use_a_browser_that_has_the_password(
    server: InProcessServer, origin: str
) -> None:
    reply = server.request("POST", "/graphql", VIEWER, headers={"origin": origin, "content-type": "text/plain"})
    assert reply.status == 403
    assert "another site" in reply.json()["errors"][0]["message"]
    assert server.request("POST", "/graphql", VIEWER, headers={"origin": "http://server.test"}).status == 200


@pytest.mark.parametrize(
    "address", ["http://[", "http://[::1", "http://a]b/", "http://\u2100.example".encode().decode("latin-1")]
)
def test_an_origin_or_host_that_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    running = InProcessServer(tmp_path / "data", key=None)
    for headers in ({"origin": address, "host": "localhost"}, {"host": address.removeprefix("http://")}):
        for method, path in (("POST", "/graphql"), ("GET", "/"), ("GET", "/?key=x"), ("GET", "/local/p")):
            reply = running.request(method, path, VIEWER, headers=headers)
            assert reply.status == 403, (method, path, headers)
    running.close()


def test_without_a_key_only_loopback_host_names_are_served(tmp_path: Path) -> None:
    running = InProcessServer(tmp_path / "data", key=None)
    for host, status in {"127.0.0.1:8418": 200, "localhost": 200, "[::1]:8418": 200, "evil.example:8418": 403}.items():
        assert running.request("POST", "/graphql", VIEWER, headers={"host": host}).status == status
        assert running.request("GET", "/", headers={"host": host}).status == status
    running.close()


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: int(seconds))


def test_an_upload_url_is_valid_for_one_file_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 1000)
    token = GATE.sign("run-file", 3, "a/b.txt")
    assert Gate(KEY, b"other").read("run-file", token) is None
    assert GATE.read("manifest", token) is None, "a token for one purpose is good for no other"
    payload, _, rest = token.partition(".")
    for forged in ("", ".", "x", f"{payload}.", f".{rest}", f"{payload}A.{rest}", "\ud800"):
        assert GATE.read("run-file", forged) is None
    at(monkeypatch, 1000 + SIGNATURE_LIFETIME_S - 1)
    assert GATE.read("run-file", token) == [3, "a/b.txt"]
    at(monkeypatch, 900)
    assert GATE.read("run-file", token) == [3, "a/b.txt"], "the host's clock was set back"
    at(monkeypatch, 1000 + SIGNATURE_LIFETIME_S + 1)
    assert GATE.read("run-file", token) is None


def test_a_cookie_is_good_for_one_key_and_for_ninety_days(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 1000)
    cookie = GATE.cookie()
    assert GATE.admits_cookie(cookie)
    assert not GATE.admits_cookie(None)
    assert not GATE.admits_cookie(GATE.sign("run-file", 3, "a"))
    assert not Gate("amc-" + "1" * 40, b"secret").admits_cookie(cookie)
    at(monkeypatch, 1000 + COOKIE_LIFETIME_S + 1)
    assert not GATE.admits_cookie(cookie)


@pytest.mark.parametrize("blob", ["{path}", "../api.key", "ab", "A" * 32, ""])
def test_a_signed_url_never_reads_a_path_in_place_of_a_blob(server: InProcessServer, blob: str) -> None:
    secret = server.folder / "api.key"
    secret.write_text(KEY)
    token = Gate(KEY, signing_secret(server.storage)).sign("blob", blob.format(path=secret), "x")
    reply = server.request("GET", f"/storage/{token}", auth=False)
    assert reply.status == 404
    assert KEY not in reply.body.decode()


def test_a_file_is_uploaded_downloaded_and_stays_in_the_data_folder(server: InProcessServer) -> None:
    assert upload(server, "media/plot #1.png", b"bytes") == 200
    assert upload(server, "media/plot #1.png", b"newer") == 200
    reply = server.request("GET", "/files/local/p/r/media/plot #1.png")
    assert (reply.status, reply.body) == (200, b"newer")
    assert reply.headers["content-disposition"].startswith("attachment")
    blobs = [path for path in (server.folder / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 1


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b", "a\0b", "..", "a\\..\\b", "x" * 1025])
def test_a_name_that_leads_out_of_the_folder_is_refused(server: InProcessServer, name: str) -> None:
    with pytest.raises(Refused):
        check_name(name)
    with pytest.raises(GraphqlRefused):
        server.graphql(CREATE_FILES, files=[name])


def test_an_expired_or_changed_upload_url_is_refused(server: InProcessServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.graphql(CREATE_FILES, files=["x.txt"])["createRunFiles"]["files"][0]["uploadUrl"]
    path = urlsplit(url).path
    head, last = path[:-10], path[-10:]  # the very last letter holds two bits that nobody reads
    assert server.request("PUT", head + last.swapcase(), b"x", auth=False).status == 403
    at(monkeypatch, time.time() + SIGNATURE_LIFETIME_S + 2)
    assert server.request("PUT", path, b"x", auth=False).status == 403
    monkeypatch.undo()
    assert server.request("PUT", path, b"x", auth=False).status == 200


def test_a_file_that_is_too_large_is_refused_and_not_kept(
    server: InProcessServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amc_server.store.blobs.MAX_FILE_BYTES", 10)
    assert upload(server, "x.bin", b"x" * 11) == 413
    assert [path for path in (server.folder / "blobs").rglob("*") if path.is_file()] == []
    assert upload(server, "x.bin", b"x" * 10) == 200


@pytest.mark.parametrize("path", ["/files/local/p/r/../../../api.key", "/files/local/p/r/nothere", "/storage/x.y"])
def test_a_missing_file_gives_403_or_404(server: InProcessServer, path: str) -> None:
    method = "PUT" if path.startswith("/storage") else "GET"
    assert server.request(method, path).status in (403, 404)


def test_the_files_of_a_deleted_run_are_deleted(server: InProcessServer) -> None:
    upload(server, "x.txt", b"x")
    run = server.graphql('{ project(name: "p") { run(name: "r") { id } } }')["project"]["run"]["id"]
    server.graphql("mutation D($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }", id=run)
    assert [path for path in (server.folder / "blobs").rglob("*") if path.is_file()] == []


def test_a_body_that_is_too_large_is_refused(server: InProcessServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amc_server.app.MAX_POST_BYTES", 100)
    reply = server.request("POST", "/files/local/p/r/file_stream", b"{" + b" " * 200 + b"}")
    assert reply.status == 413


def test_pages_escape_what_trials_wrote(server: InProcessServer) -> None:
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
    assert server.request("GET", f"/local/p/sweeps/{sweep}").status == 200
    assert b"0.9" in server.request("GET", f"/local/p/sweeps/{sweep}/data").body
    assert server.request("GET", f"/local/p/runs/{run}").status == 200
    assert b"0.9" in server.request("GET", f"/local/p/runs/{run}/data").body
    server.begin("alone")
    server.log("alone", 0.4, 0.2, metric="train/loss")
    assert b"train/loss" in server.request("GET", "/local/p/runs/alone/data").body
    for path in ("/local/nothere", "/local/p/runs/nothere", "/local/p/sweeps/nothere", "/team/p"):
        assert server.request("GET", path, headers={"accept": "text/html"}).status == 404
