"""The embedded server as a real process on a free port, for tests that start, kill and restart it."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_TIMEOUT_S = 60.0


class EmbeddedServer:
    """``amc-sweep serve`` on 127.0.0.1 with a data folder.

    >>> with EmbeddedServer(tmp_path / "data") as server:
    ...     subprocess.run(["wandb", "sweep", "x.yaml"], env=server.environment())
    """

    def __init__(
        self,
        data: Path,
        *,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        trusted: Path | None = None,
        prelude: str = "",
    ) -> None:
        """Prepare.

        Args:
            data: the data folder.
            options: of ``amc-sweep serve``.
            env: more variables for the server.
            trusted: the certificate of a server that uses TLS.
            prelude: code that the server's process runs before it serves.
        """
        self.data = data
        self._tls = ssl.create_default_context(cafile=trusted) if trusted else None
        self._options = options
        self._prelude = prelude
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """The address, the same after a restart."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def key(self) -> str:
        """The key that the server made."""
        return (self.data / "api.key").read_text().strip()

    @property
    def pid(self) -> int:
        """The process id of the server that runs now."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the process wrote to stdout and stderr, over all restarts."""
        return self.data.with_name(f"{self.data.name}.log")

    def environment(self, **more: str) -> dict[str, str]:
        """Return this process's environment, pointed at the server."""
        foreign = ("WANDB_SERVICE", "WANDB_API_KEY", "WANDB_BASE_URL")
        inherited = {name: value for name, value in os.environ.items() if name not in foreign}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
        return {**inherited, "PATH": path, "WANDB_BASE_URL": self.base_url, "WANDB_API_KEY": self.key, **more}

    @staticmethod
    def process_environment() -> dict[str, str]:
        """Return an environment in which the checkout can be imported, installed or not."""
        return {**os.environ, **_import_path()}

    def start(self) -> Self:
        """Start the process and wait until it answers."""
        state = self.data.with_name(f"{self.data.name}.state")
        entry = f"{self._prelude}\nfrom amc_agents.commands.serve import serve_command; serve_command()"
        command = [sys.executable, "-X", "faulthandler", "-c", entry, "--data", str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self._port), *self._options],
                env={**self.process_environment(), "AMC_STATE_DIR": str(state), **self._env},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self._port == 0:
                self._port = _port_in(state, self._process.pid)
            if self._port != 0 and self.health() is not None:
                return self
            time.sleep(0.05)
        self._end(signal.SIGABRT)  # writes to the log where it hangs
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def health(self) -> dict[str, Any] | None:
        """Return what /healthz answers, or None."""
        try:
            with urllib.request.urlopen(f"{self.base_url}/healthz", timeout=2, context=self._tls) as response:
                return dict(json.loads(response.read()))
        except (OSError, urllib.error.URLError):
            return None

    def graphql(self, document: str, **variables: Any) -> dict[str, Any]:
        """Execute a document with the server's key and return its data."""
        credentials = base64.b64encode(f"api:{self.key}".encode()).decode()
        request = urllib.request.Request(
            f"{self.base_url}/graphql",
            json.dumps({"query": document, "variables": variables}).encode(),
            {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as response:
            answer = json.loads(response.read())
        assert not answer.get("errors"), answer["errors"]
        return dict(answer["data"])

    def kill(self) -> None:
        """End the process by SIGKILL, as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the process by SIGTERM and return its exit code."""
        return self._end(signal.SIGTERM)

    def wait_for_end(self, within_s: float) -> None:
        """Wait until the process has ended by itself. A closed port says less: the folder may still be locked."""
        assert self._process is not None
        self._process.wait(within_s)

    def restart(self) -> Self:
        """Start again on the same folder and port, after ``kill`` or ``stop``."""
        self._end(signal.SIGKILL)
        return self.start()

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self._process.wait(timeout=30)
        self._process = None
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()


def _import_path() -> dict[str, str]:
    """Return the import path for a checkout that is not installed; harmless where it is."""
    root = Path(__file__).resolve().parents[2]
    roots = [root, root / "sweeps", root / "agents", root / "analysis"]
    return {"PYTHONPATH": os.pathsep.join(map(str, roots))}


def _port_in(state: Path, pid: int) -> int:
    for path in state.glob("*.json"):
        state = json.loads(path.read_text())
        if state["pid"] == pid:
            return int(state["base_url"].rsplit(":", 1)[1])
    return 0
