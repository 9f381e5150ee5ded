"""The real client uploads checkpoints to a server that is killed at the worst moments of a deletion."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from client_scenarios import Researcher
from embedded_server import EmbeddedServer
from in_process_server import InProcessServer
from whole_versions import furthest_whole_version

from amc_server.store.unreferenced_blobs import unreferenced_blobs

pytestmark = pytest.mark.client

UPLOAD = """
from pathlib import Path
from amc_sweeps.runs.checkpoint_artifacts import checkpoint_facts
open("middle", "w").close()
with wandb.init(project="demo", id="r") as run:
    for epoch in range(1, 7):
        Path("last.pt").write_bytes(os.urandom(300_000))
        facts = checkpoint_facts(epoch=epoch, steps_done=0, split_fingerprint="s", files=["last.pt"])
        artifact = wandb.Artifact("checkpoint-r", type="checkpoint", metadata=facts)
        artifact.add_file("last.pt", policy="immutable", skip_cache=True)
        run.log_artifact(artifact).wait()
        Path("acknowledged").write_text(str(epoch))
api = wandb.Api()
versions = [artifact.version for artifact in api.artifacts("checkpoint", "demo/checkpoint-r")]
folder = Path(api.artifact("demo/checkpoint-r:latest").download("got", skip_cache=True))
same = (folder / "last.pt").read_bytes() == Path("last.pt").read_bytes()
cached = [path for path in Path(sys.argv[1]).rglob("*") if path.is_file() and path.stat().st_size >= 300_000]
print(json.dumps({"versions": versions, "same": same, "cached": len(cached)}))
"""
# The server kills itself once at each of these moments.
KILLS = ("within the transaction", "before the bytes go", "before the reply")
KILLER = """
import os, pathlib
from amc_server.store.blobs import Blobs
from amc_server.store.writer import Writer
def kill(moment):
    try:
        (pathlib.Path(os.environ["KILLS"]) / moment).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), 9)
delete, remove = Writer.delete_artifact, Blobs.remove
def deleting(self, artifact):
    blobs = delete(self, artifact)
    kill("within the transaction")
    return blobs
def removing(self, name):
    kill("before the bytes go")
    remove(self, name)
    kill("before the reply")
Writer.delete_artifact, Blobs.remove = deleting, removing
"""


def test_a_server_that_is_killed_while_it_deletes_loses_no_checkpoint(tmp_path: Path) -> None:
    kills, work = tmp_path / "kills", tmp_path / "work"
    for folder in (kills, work):
        folder.mkdir()
    for moment in KILLS:
        (kills / moment).touch()
    acknowledged = work / "acknowledged"
    with EmbeddedServer(tmp_path / "data", env={"KILLS": str(kills)}, prelude=KILLER) as server:

        def survive() -> None:
            for left in (2, 1, 0):
                server.wait_for_end(within_s=60)
                assert len(list(kills.iterdir())) == left
                uploaded = int(acknowledged.read_text())
                copy = InProcessServer(server.data)
                assert furthest_whole_version(copy, "checkpoint-r", project="demo") >= (uploaded, 0)
                copy.close()
                server.restart()

        cache = str(tmp_path / "cache")
        found = Researcher(work, server).python(
            UPLOAD, cache, meanwhile=survive, WANDB_CACHE_DIR=cache, WANDB_SILENT="true"
        )
        blobs = {path for path in (server.data / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 10**5}
        lost = {blob.path for blob in unreferenced_blobs(server.data, now=time.time() + 7200, older_than_s=0)}
    assert found == {"versions": ["v5"], "same": True, "cached": 0}
    assert len(blobs - lost) == 1, "of the last version"
    assert 1 <= len(blobs & lost) <= 2, "what the kills kept the server from deleting; amc-sweep clean finds it"
