"""Artifacts of the real wandb client: it writes in one process, and another with an empty cache reads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from client_scenarios import Researcher
from embedded_server import EmbeddedServer

pytestmark = pytest.mark.client

WRITE = """
from pathlib import Path
web = sys.argv[1]
out = {}
for name in ("w.pt", "near.bin"):
    Path(name).write_bytes(name.encode() * 100)

def weights(**more):
    artifact = wandb.Artifact("model", type="model", **more)
    artifact.add_file("w.pt", name="deep/w.pt")
    return artifact

def refusal(action):
    try:
        action()
    except Exception as error:
        return str(error)
    return "no refusal"

with wandb.init(project="demo", id="first") as run:
    run.log_artifact(weights(), aliases=["best"], tags=["small", "two words"]).wait()
    second = weights()
    second.add_file("near.bin")
    run.log_artifact(second).wait()
    pointers = wandb.Artifact("pointers", type="dataset")
    pointers.add_reference("file://" + os.path.abspath("near.bin"), name="near.bin")
    pointers.add_reference(web + "/far.bin", name="far.bin")
    stored = run.use_artifact("model:best")
    pointers.add_reference(stored.get_entry("deep/w.pt"), name="w.pt")
    run.log_artifact(pointers).wait()
    out["ttl"] = refusal(lambda: setattr(stored, "ttl", __import__("datetime").timedelta(days=1)) or stored.save())
    def incremental():
        artifact = wandb.Artifact("model", type="model", incremental=True)
        artifact.add_file("near.bin")
        run.log_artifact(artifact).wait()
    out["incremental"] = refusal(incremental)
    out["link"] = refusal(lambda: stored.link("demo/portfolio"))
with wandb.init(project="demo", id="second") as run:
    out["same"] = run.log_artifact(weights()).wait().version
    run.use_artifact("pointers:latest")
print(json.dumps(out))
"""
READ = """
from pathlib import Path
api = wandb.Api()
out = {}
model = api.artifact("demo/model:best")
out["entry"] = Path(model.get_entry("deep/w.pt").download()).read_text()[:4]
out["listed"] = Path(model.files()[0].download(root="listed").name).read_text()[:4]
out["whole"] = sorted(str(path.relative_to("whole")) for path in Path(model.download("whole")).rglob("*.pt"))
out["file"] = Path(model.file("single")).read_text()[:4]
pointers = api.artifact("demo/pointers:latest").download("pointers")
out["references"] = {path.name: path.read_text()[:4] for path in Path(pointers).iterdir()}
out["url"] = model.url
out["tags"] = sorted(model.tags)
out["used_by"] = [run.id for run in api.artifact("demo/pointers:latest").used_by()]
out["logged_by"] = model.logged_by().id
for run in ("first", "second"):
    out["logged " + run] = [artifact.name for artifact in api.run("demo/" + run).logged_artifacts()]
    out["used " + run] = [artifact.name for artifact in api.run("demo/" + run).used_artifacts()]
for order in ("+created_at", "-created_at"):
    out[order] = [artifact.version for artifact in api.artifacts("model", "demo/model", order=order)]
out["tagged"] = [artifact.version for artifact in api.artifacts("model", "demo/model", tags=["small"])]

model.tags.append("large")
model.tags.remove("small")
model.aliases.append("kept")
model.aliases.remove("best")
model.description = "the first"
model.save()
model = wandb.Api().artifact("demo/model:kept")
out["changed"] = [sorted(model.tags), sorted(model.aliases), model.description]

out["collections"] = [collection.name for collection in api.artifact_collections("demo", "model")]
collection = api.artifact_collection("model", "demo/model")
collection.description = "all weights"
collection.tags = ["archive"]
collection.name = "weights"
collection.save()
collection = wandb.Api().artifact_collection("model", "demo/weights")
out["collection"] = [collection.name, collection.description, sorted(collection.tags)]
out["renamed"] = wandb.Api().artifact("demo/weights:kept").version

try:
    model.delete()
except Exception as error:
    out["refused"] = str(error)
wandb.Api().artifact("demo/weights:v0").delete(delete_aliases=True)
out["left"] = [artifact.version for artifact in wandb.Api().artifacts("model", "demo/weights")]
wandb.Api().artifact_collection("dataset", "demo/pointers").delete()
out["exists"] = wandb.Api().artifact_collection_exists("demo/pointers", "dataset")
print(json.dumps(out))
"""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a plain web server that has far.bin."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "far.bin").write_text("far.bin")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_artifacts_are_read_with_an_empty_cache(tmp_path: Path, web: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with EmbeddedServer(tmp_path / "data") as server:
        researcher = Researcher(folder, server)

        def python(code: str, cache: str) -> Any:
            return researcher.python(code, web, WANDB_CACHE_DIR=str(tmp_path / cache), WANDB_SILENT="true")

        written = python(WRITE, "writer")
        listing = researcher.wandb("artifact", "ls", "local/demo", "--type", "model")
        read = python(READ, "reader")
        log = (server.data / "server.log").read_text()
    assert "graphql not understood" not in log
    assert "versions never expire here" in written.pop("ttl")
    assert "takes no incremental artifacts" in written.pop("incremental")
    assert "links no artifacts" in written.pop("link")
    assert written == {"same": "v0"}
    assert "model:v1" in listing
    assert read.pop("url").endswith("/local/demo/artifacts/model/model/v0")
    assert "the artifact has aliases (kept, latest)" in read.pop("refused")
    assert read == {
        "entry": "w.pt",
        "listed": "w.pt",
        "whole": ["deep/w.pt"],
        "file": "w.pt",
        "references": {"w.pt": "w.pt", "near.bin": "near", "far.bin": "far."},
        "tags": ["small", "two words"],
        "used_by": ["second"],
        "logged_by": "first",
        "logged first": ["model:v0", "model:v1", "pointers:v0"],
        "logged second": ["model:v0"],
        "used first": ["model:v0"],
        "used second": ["pointers:v0"],
        "+created_at": ["v0", "v1"],
        "-created_at": ["v1", "v0"],
        "tagged": ["v0"],
        "changed": [["large", "two words"], ["kept", "latest"], "the first"],
        "collections": ["model"],
        "collection": ["weights", "all weights", ["archive"]],
        "renamed": "v0",
        "left": ["v1"],
        "exists": False,
    }
