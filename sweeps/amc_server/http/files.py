"""Uploads of files to signed URLs, and downloads from signed URLs or from a run's path."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from amc_server.auth import Gate
from amc_server.clock import Clock
from amc_server.errors import Refused
from amc_server.store.blobs import Blob, Blobs
from amc_server.store.reader import Reader
from amc_server.store.records import Run
from amc_server.store.storage import Storage


class FileEndpoints:
    """Uploads and downloads of runs' files and of artifacts."""

    def __init__(self, storage: Storage, clock: Clock, gate: Gate, blobs: Blobs) -> None:
        self._storage = storage
        self._clock = clock
        self._gate = gate
        self._blobs = blobs

    async def upload(self, request: Request) -> Response:
        token = request.path_params["token"]
        record = self._recorder(token)
        if record is None:
            raise Refused(
                "this upload URL is not from this server or has expired: ask for another (createRunFiles)", status=403
            )
        blob = await self._blobs.receive(request.stream())
        try:
            discarded = await run_in_threadpool(record, blob)
        except BaseException:
            self._blobs.remove(blob.name)
            raise
        if discarded is not None:
            self._blobs.remove(discarded)
        return Response(status_code=200)

    def _recorder(self, token: str) -> Callable[[Blob], str | None] | None:
        """Return the function that records an uploaded blob and returns the blob that it replaces.

        None for a token that allows no upload.
        """
        if claim := self._gate.read("run-file", token):
            return functools.partial(self._record_file, *claim)
        if claim := self._gate.read("artifact-file", token):
            return functools.partial(self._record_artifact_file, *claim)
        if claim := self._gate.read("manifest", token):
            return functools.partial(self._record_manifest, *claim)
        return None

    def _record_file(self, run: int, name: str, blob: Blob) -> str | None:
        with self._storage.write() as store:
            if store.run_by_key(run) is None:
                return blob.name
            before = store.file(run, name)
            now = self._clock.wall()
            store.put_file(run, name=name, blob=blob.name, size=blob.size, md5=blob.md5, updated_at=now)
            return before.blob if before else None

    def _record_artifact_file(self, pk: int, blob: Blob) -> str | None:
        with self._storage.write() as store:
            file = store.artifact_file(pk)
            artifact = store.artifact(file.artifact) if file else None
            if file is None or artifact is None or artifact.is_committed:
                return blob.name  # sent again after the commit, or deleted meanwhile
            if file.md5 and blob.md5 != file.md5:
                raise Refused(f"{file.name} was announced with MD5 {file.md5} and arrived with {blob.md5}", status=400)
            now = self._clock.wall()
            store.update("artifact_files", pk, blob=blob.name, size=blob.size, md5=blob.md5, updated_at=now)
            return file.blob

    def _record_manifest(self, pk: int, blob: Blob) -> str | None:
        with self._storage.write() as store:
            artifact = store.artifact(pk)
            if artifact is None or artifact.is_committed:
                return blob.name
            store.update("artifacts", pk, manifest=blob.name, updated_at=self._clock.wall())
            return artifact.manifest

    async def signed_download(self, request: Request) -> Response:
        """Send the file that a signed URL names; the client fetches artifacts without the key."""
        claim = self._gate.read("blob", request.path_params["token"])
        if claim is None:
            raise Refused("this download URL is not from this server or has expired: ask for another", status=403)
        path = self._blobs.path(claim[0])
        if not path.is_file():
            raise Refused("the file has been deleted", status=404)
        return _attachment(path, claim[1])

    async def download_artifact_file(self, request: Request) -> Response:
        """Send one file of an artifact, which its MD5 names: the client downloads single files so."""
        path = request.path_params
        names: list[str] = path["rest"].split("/")  # [BIRTH_ARTIFACT/]MD5/NAME
        hexadecimal, name = ["", *names][-2:]

        def find() -> Path:
            with self._storage.read() as store:
                project = store.project(path["entity"], path["project"])
                md5 = _md5_of(hexadecimal)
                blob = store.blob_of_artifact_file(project.pk, md5, name) if project else None
            if blob is None:
                raise Refused(f"project {path['project'][:80]!r} has no artifact file {name[:200]!r}", status=404)
            return self._blobs.path(blob)

        return _attachment(await run_in_threadpool(find), name)

    async def download(self, request: Request) -> Response:
        def find() -> tuple[Path, str]:
            with self._storage.read() as store:
                run = run_at(store, request.path_params)
                file = store.file(run.pk, request.path_params["name"])
            if file is None:
                raise Refused(f"the run has no file {request.path_params['name'][:200]!r}", status=404)
            return self._blobs.path(file.blob), file.name

        return _attachment(*await run_in_threadpool(find))


def _md5_of(hexadecimal: str) -> str:
    """Return an MD5 in base64, as it is stored.

    Raises:
        Refused: it is not hexadecimal (404).
    """
    try:
        return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
    except ValueError as error:
        raise Refused(f"{hexadecimal[:80]!r} is not the MD5 of a file", status=404) from error


def _attachment(path: Path, name: str) -> Response:
    """Send a file as a download: a browser must not show a trial's file as a page of this server."""
    return FileResponse(path, filename=name.rsplit("/", 1)[-1], headers={"X-Content-Type-Options": "nosniff"})


def run_at(store: Reader, path: dict[str, str]) -> Run:
    """Return the run that a path names.

    Raises:
        Refused: there is no such run (404).
    """
    run = store.run_at(path["entity"], path["project"], path["run"])
    if run is None:
        raise Refused(f"there is no run {path['entity']}/{path['project']}/{path['run']}", status=404)
    return run
