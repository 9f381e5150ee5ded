"""The list of timm's names. ``python tests/core/models/test_model_names.py`` writes it for the installed timm."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from timm.models import _registry

from amc_core.config import MODEL_ALIASES, OWN_NETWORKS
from amc_core.models import model_names
from amc_core.models.model_names import is_model, similar_models, timm_names

FILE = Path(model_names.__file__).parent / "timm_names.txt"


def document() -> str:
    """Return the list; timm has no public function that gives its deprecated names, too."""
    title = f"# every name that timm {timm.__version__} builds; tests/core/models/test_model_names.py writes it"
    return "\n".join([title, *sorted(_registry._model_entrypoints)]) + "\n"


def test_the_list_is_that_of_the_installed_timm() -> None:
    assert timm_names() == set(_registry._model_entrypoints)


@pytest.mark.parametrize("name", [*MODEL_ALIASES, *OWN_NETWORKS, "resnet50", "resnet50.a1_in1k"])
def test_a_listed_name_is_known_without_timm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)  # an import of it fails
    assert is_model(name)
    assert not is_model("resnet51")


def test_a_name_that_only_a_newer_timm_has_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_names, "timm_names", frozenset)
    assert is_model("resnet50")
    assert not is_model("resnet51")


def test_similar_names_are_offered_from_timm_and_from_ours() -> None:
    assert "resnet50" in similar_models("resnet51", timm_names())
    assert similar_models("iq_convnt", timm_names())[0] == "iq_convnet"


if __name__ == "__main__":
    FILE.write_text(document())
