"""The errors of this folder's modules."""

from __future__ import annotations

WAYS = """\
Three ways to name a W&B:
  amc-sweep serve                   start the embedded server in another terminal: no account, no internet
  wandb login                       use your account in W&B's cloud, or add --host for a server of your own
  --base-url URL, WANDB_BASE_URL    give the address of a server, and its key in WANDB_API_KEY"""


class BackendError(RuntimeError):
    """No W&B, no sweep or no run fits what was given; the message says what to do next."""


class UntrustedError(BackendError):
    """A server answers by TLS with a certificate that this machine does not trust."""
