"""Writes the script and the key of an array of agents, and gives the script to Slurm."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from amc_core.files import write_whole
from amc_sweeps.backend.choose import Backend

TIMEOUT_S = 60.0  # a busy controller makes sbatch wait
# They belong to this process. The script gets the address and the key from its own lines.
_OWN_VARIABLES = ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_SERVICE", "WANDB_SILENT")


class SubmitError(RuntimeError):
    """Slurm did not take the script; the message says why."""


def write_key(backend: Backend, folder: Path) -> Path | None:
    """Write the server's key into a folder that the nodes see, for this user alone, and return the file.

    None where this user's login (netrc) is in the home folder, which the nodes see, too.
    """
    if backend.api_key is None:
        return None
    path = folder / "key"
    write_whole(path, f"{backend.api_key}\n", mode=0o600)
    return path


def unreachable(backend: Backend, nodes: Sequence[str]) -> str | None:
    """Return why the nodes cannot reach the W&B, or None.

    Args:
        backend: the W&B.
        nodes: host names of the cluster; empty if they are not known.
    """
    others = [node for node in nodes if node.partition(".")[0] != socket.gethostname().partition(".")[0]]
    if not backend.is_on_this_machine or not others:
        return None
    return (
        f"{backend.base_url} is an address of this machine alone, and the nodes ({', '.join(others[:3])}, ...) cannot "
        "reach it. Start the server for the network: amc-sweep serve --host 0.0.0.0 --tls-cert CERT --tls-key KEY. "
        "Then name its address: --node-url https://HOST:8418"
    )


def cluster_nodes() -> list[str]:
    """Return the host names of the cluster's nodes; empty without Slurm."""
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%n"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted(set(done.stdout.split()))


def submit(script: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Give a script to Slurm and return the job's id.

    Raises:
        SubmitError: sbatch is not installed here, or refuses the script.
    """
    if shutil.which("sbatch") is None:
        raise SubmitError(
            f"this machine has no sbatch. On a login node of the cluster run: sbatch {script}. --dry-run prints the "
            "script"
        )
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", str(script)],
            env={name: value for name, value in environ.items() if name not in _OWN_VARIABLES},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SubmitError(f"sbatch does not answer: {error}") from error
    if done.returncode != 0:
        raise SubmitError(f"Slurm did not take {script}: {done.stderr.strip() or 'sbatch gives no reason'}")
    return done.stdout.strip().partition(";")[0]  # ID;CLUSTER where there are several clusters
