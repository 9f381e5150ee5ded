"""The checks of amc-sweep doctor. This machine has no GPU and a correct clock, so those facts are given as values."""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import h5py
import pytest
from click.testing import CliRunner
from embedded_server import EmbeddedServer
from plain_wandb import KEY, PlainWandb
from tiny_files import synthetic_file

from amc_agents import doctor
from amc_agents.cleaning import client_cache
from amc_agents.commands import main
from amc_agents.disk_room import Quota, Room, parse_quota, read_room
from amc_agents.doctor import Check, Gpu, TorchFacts
from amc_core.verdicts import Verdict
from amc_server.store.network_disk import Mount

H200 = Gpu("NVIDIA H200", "580.95", 143771)
WORKS = TorchFacts("2.14.1+cu130", "13.0", ("NVIDIA H200",))


@pytest.mark.parametrize(
    ("gpus", "torch", "visible", "verdict", "message"),
    [
        ([H200], WORKS, None, "pass", "NVIDIA H200 (140 GiB), driver 580.95, torch 2.14.1+cu130 computes on CUDA 13.0"),
        ([H200, H200], WORKS, "0", "pass", "torch sees 1 of them"),
        ([H200], TorchFacts("2.14.1+cpu", None, ()), None, "fail", "is a CPU build"),
        ([H200], TorchFacts("2.14.1", "13.0", ()), None, "fail", "cannot compute on it (built for CUDA 13.0)"),
        ([H200], TorchFacts("2.14.1", "13.0", ()), "7", "fail", "CUDA_VISIBLE_DEVICES='7' hides it from torch"),
        (None, TorchFacts("2.14.1", "13.0", ()), None, "warn", "no NVIDIA driver answers"),
        ([], TorchFacts("2.14.1", "13.0", ()), None, "warn", "the driver lists no GPU"),
        (None, TorchFacts("?", None, (), "libcudart.so.13: not found"), None, "fail", "libcudart.so.13"),
    ],
)
def test_driver_and_torch_are_judged_together(
    gpus: list[Gpu] | None, torch: TorchFacts, visible: str | None, verdict: str, message: str
) -> None:
    check = doctor.gpu_check(gpus, torch, visible)
    assert check.verdict == verdict
    assert message in check.text
    assert (check.remedy is None) == (verdict == "pass")


def test_what_nvidia_smi_prints_is_read() -> None:
    printed = "NVIDIA H200, 580.95, 143771\nNVIDIA A100-SXM4-80GB, 580.95, [N/A]\n\n"
    assert doctor.parse_gpus(printed) == [H200, Gpu("NVIDIA A100-SXM4-80GB", "580.95", 0)]


@pytest.mark.parametrize(
    ("ahead_s", "verdict", "message"),
    [
        (0.4, "pass", "within 1 s"),
        (-29.0, "pass", "within 29 s"),
        (45.0, "warn", "45 s behind the server's"),
        (-45.0, "warn", "45 s ahead of the server's"),
        (400.0, "fail", "living runs may look lost"),
        (None, "warn", "did not send its time"),
    ],
)
def test_the_clock_is_judged_by_the_servers(ahead_s: float | None, verdict: str, message: str) -> None:
    check = doctor.clock_check(ahead_s)
    assert (check.verdict, message in check.text) == (verdict, True)


class _Late(BaseHTTPRequestHandler):
    """A server whose clock is two minutes ahead, without any page; it must get no key."""

    def do_HEAD(self) -> None:
        assert "Authorization" not in self.headers
        self.send_error(404)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + 120)

    def log_message(self, *_: Any) -> None:
        pass


def test_the_servers_clock_is_read_from_any_answer_without_sending_the_key() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Late)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        ahead_s = doctor.server_ahead_s(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert ahead_s is not None
    assert 100 < ahead_s < 140
    assert doctor.server_ahead_s("http://127.0.0.1:9") is None


@pytest.mark.parametrize("head", ["hello", "HTTP/1.0 200 OK\r\nDate: yesterday", "HTTP/1.0 200 OK"])
def test_a_server_that_tells_no_time_is_no_defect(head: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"{head}\r\n\r\n".encode())

        thread = Thread(target=reply)
        thread.start()
        assert doctor.server_ahead_s(f"http://127.0.0.1:{server.getsockname()[1]}") is None
        thread.join()


@pytest.mark.parametrize(
    ("installed", "python", "message"),
    [
        ({"wandb": "0.32.0"}, (3, 12, 1), "wandb 0.32.0, accepted: <0.32,>=0.31"),
        ({"wandb": None}, (3, 12, 1), "wandb is missing"),
        ({"wandb": "0.31.0"}, (3, 10, 9), "Python 3.10.9, accepted: 3.11 or newer"),
    ],
)
def test_versions_outside_the_accepted_range_fail(
    installed: dict[str, str | None], python: tuple[int, ...], message: str
) -> None:
    check = doctor.versions_check(installed, ["wandb>=0.31,<0.32"], python)
    assert (check.verdict, message in check.text) == ("fail", True)


def room(free_gb: float = 100, free_files: int | None = 10**6, quota: Quota | None = None) -> Room:
    return Room(int(free_gb * 1e9), free_files, is_writable=True, quota=quota)


def test_room_for_checkpoints_is_looked_for_where_the_folder_would_be_made(tmp_path: Path) -> None:
    found = read_room(tmp_path / "not" / "there")
    assert found.is_writable
    assert 0 < found.free_bytes < 10**18
    assert doctor.disk_check(tmp_path, room(100)).verdict == "pass"
    assert doctor.disk_check(tmp_path, room(10)).verdict == "warn"
    assert doctor.disk_check(tmp_path, room(1)).verdict == "fail"
    assert doctor.disk_check(tmp_path, replace(room(100), is_writable=False)).verdict == "fail"


def test_a_quota_counts_where_it_leaves_less_than_the_disk(tmp_path: Path) -> None:
    check = doctor.disk_check(tmp_path, room(quota=Quota(99 * 10**9, 100 * 10**9, 5, None)))
    assert check.verdict == "fail"
    assert "your quota has 1.0 of 100.0 GB left" in check.text
    assert doctor.disk_check(tmp_path, room(quota=Quota(10**15, None, 0, 9))).verdict == "pass"
    assert doctor.disk_check(tmp_path, room(quota=Quota(2 * 10**9, 10**9, 0, 9))).text.startswith("0.0 GB free")


def test_the_number_of_files_is_judged_by_disk_and_quota(tmp_path: Path) -> None:
    assert doctor.files_check(tmp_path, room()).verdict == "pass"
    assert doctor.files_check(tmp_path, room(free_files=None)).verdict == "pass"
    assert doctor.files_check(tmp_path, room(free_files=5_000)).verdict == "warn"
    full = doctor.files_check(tmp_path, room(free_files=None, quota=Quota(0, None, 99_500, 100_000)))
    assert (full.verdict, "500 more files fit" in full.text, "100,000 files" in full.text) == ("fail", True, True)


def test_a_large_cache_of_the_client_is_named_with_the_way_to_shrink_it(tmp_path: Path) -> None:
    folder = client_cache.cache_folder({"WANDB_CACHE_DIR": str(tmp_path)})
    assert client_cache.cache_size(folder) == 0
    (folder / "obj" / "md5").mkdir(parents=True)
    (folder / "obj" / "md5" / "a").write_bytes(bytes(1000))
    assert client_cache.cache_size(folder) == 1000
    assert doctor.cache_check(folder, 1000).verdict == "pass"
    check = doctor.cache_check(folder, 13 * 10**8 * 10)
    assert check.verdict == "warn"
    assert "amc-sweep clean" in (check.remedy or "")


QUOTA = """Disk quotas for user ada (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
/dev/mapper/home 1048576* 1000000 2000000 1700000000 5432 0 0 0
nfs:/scratch 10 0 0 0 5 0 0 0
"""
LUSTRE = "/lustre  2097152  0 4194304  -  777*  700 900  6d23h59m\n"


def test_what_quota_and_lfs_print_is_read() -> None:
    home, scratch = Mount("/home", "ext4", "/dev/mapper/home"), Mount("/scratch", "nfs4", "nfs:/scratch")
    assert parse_quota(QUOTA, home) == Quota(1048576 * 1024, 1000000 * 1024, 5432, None)
    assert parse_quota(QUOTA, scratch) is None, "0 means no limit"
    assert parse_quota(LUSTRE, Mount("/lustre", "lustre", "mgs@tcp:/fs")) == Quota(2**31, 2**32, 777, 700)
    for text in ("", "none", "/home a b c d e f g h", "/home 1 2 3"):
        assert parse_quota(text, home) is None


def test_an_offline_mode_is_named() -> None:
    check = doctor.mode_check({"WANDB_MODE": "offline"})
    assert check is not None
    assert check.verdict == "fail"
    assert doctor.mode_check({}) is None


def test_a_data_file_is_audited_by_samples_and_a_damaged_one_fails(tmp_path: Path) -> None:
    file = synthetic_file(tmp_path, levels_db=(10, 20), frames_per_cell=12)
    assert doctor.data_check(file).verdict == "pass"
    with h5py.File(file, "r+") as data:
        data["Z"][...] = data["Z"][...] - 10  # labels that the noise contradicts
    wrong = doctor.data_check(file)
    assert wrong.verdict == "warn"
    assert "amc-data audit" in (wrong.remedy or "")
    file.write_bytes(b"no HDF5")
    assert doctor.data_check(file).verdict == "fail"
    assert doctor.data_check(tmp_path / "none").verdict == "fail"
    assert doctor.data_check(None).verdict == "warn"


# --- the command


def _examined(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    import amc_agents.commands.doctor as command

    monkeypatch.setattr(command, "examine", lambda *_args, **_named: iter(checks))


def test_a_failure_is_exit_code_1_and_a_warning_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    warning = Check("GPU", Verdict.WARN, "no driver", "install one")
    _examined(monkeypatch, Check("disk", Verdict.PASS, "room"), warning)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1:] == ["warn GPU       no driver", "               -> install one"]
    _examined(monkeypatch, warning, Check("W&B", Verdict.FAIL, "nobody answers", "start it"))
    done = CliRunner().invoke(main, ["doctor"])
    assert (done.exit_code, done.stderr) == (1, "not ready: W&B\n")
    document = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert (document["ready"], [check["verdict"] for check in document["checks"]]) == (False, ["warn", "fail"])


def _verdicts(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, tuple[str, str]]:
    monkeypatch.setattr(doctor, "torch_facts", lambda: TorchFacts("2.14.1", "13.0", ()))  # its import takes seconds
    document = json.loads(CliRunner().invoke(main, ["doctor", "--json", *arguments]).stdout)
    return {check["name"]: (check["verdict"], check["message"]) for check in document["checks"]}


def test_without_any_wandb_the_ways_are_named_and_the_rest_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = _verdicts(monkeypatch)
    assert verdicts["W&B"][0] == "fail"
    assert verdicts["versions"][0] == "pass"
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in verdicts["versions"][1]
    assert "clock" not in verdicts


@pytest.mark.compatibility("doctor")
@pytest.mark.client
def test_a_real_server_says_who_i_am_and_what_time_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    with EmbeddedServer(tmp_path / "data") as server, PlainWandb(server) as plain:
        try:
            monkeypatch.setenv("WANDB_API_KEY", server.key)
            verdicts = _verdicts(monkeypatch, "--base-url", server.base_url)
            assert verdicts["W&B"][0] == "pass", verdicts["W&B"]
            assert "you are local, runs go to local" in verdicts["W&B"][1]
            assert verdicts["clock"] == ("pass", "within 1 s of the server's")
            monkeypatch.setenv("WANDB_API_KEY", KEY)
            assert "W&B server" in _verdicts(monkeypatch, "--base-url", plain.base_url)["W&B"][1]
            monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
            assert _verdicts(monkeypatch, "--base-url", plain.base_url)["W&B"][0] == "fail"
        finally:
            wandb.teardown()
