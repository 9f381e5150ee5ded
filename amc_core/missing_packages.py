"""What a command says where a package is not installed, as on a machine with the light install (no torch).

Every wing uses this module, so it imports the standard library only.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

DISTRIBUTION = "amc-sweep-toolkit"

# Packages that pip knows under another name than ``import``.
_PIP_NAMES = {
    "PIL": "pillow",
    "graphql": "graphql-core",
    "pynvml": "nvidia-ml-py",
    "re2": "google-re2",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def required_package(error: ModuleNotFoundError) -> str | None:
    """Return pip's name of the package that an import did not find; None if the toolkit does not require it."""
    name = error.name or ""
    package = _PIP_NAMES.get(name, name)
    try:
        required = {re.split(r"[^\w.-]", text)[0].lower() for text in requires(DISTRIBUTION) or [] if ";" not in text}
    except PackageNotFoundError:  # a checkout that is not installed
        return None
    return package if package.lower() in required else None


def require(name: str) -> None:
    """Check that a package is installed, without the seconds that its import takes.

    Raises:
        ModuleNotFoundError: it is not.
    """
    if find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
