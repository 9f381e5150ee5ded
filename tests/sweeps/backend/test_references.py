"""References to sweeps and runs: the forms that are read, and the search for what they name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.keys import CLOUD_URL
from amc_sweeps.backend.references import Reference, TargetNotFoundError, find_sweep, parse_reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("94fqx0gz", Reference("94fqx0gz")),
        ("amc/94fqx0gz", Reference("94fqx0gz", "amc")),
        ("me/amc/94fqx0gz", Reference("94fqx0gz", "amc", "me")),
        ("https://wandb.ai/me/amc/sweeps/94fqx0gz?nw=1", Reference("94fqx0gz", "amc", "me", CLOUD_URL)),
        ("https://forge.coreweave.com/wandb/me/amc/sweeps/94fqx0gz", Reference("94fqx0gz", "amc", "me", CLOUD_URL)),
        ("http://127.0.0.1:8418/local/amc/sweeps/x1", Reference("x1", "amc", "local", "http://127.0.0.1:8418")),
        ("https://wandb.example.org/wandb/me/amc/sweeps/x1", Reference("x1", "amc", "me", "https://wandb.example.org")),
        ("Prüfung 😀/x1", Reference("x1", "Prüfung 😀")),
        ("me/a+b@c, d=e/x1", Reference("x1", "a+b@c, d=e", "me")),
        ("https://wandb.ai/wandb/amc/sweeps/x1", Reference("x1", "amc", "wandb", CLOUD_URL)),
    ],
)
def test_a_sweep_is_read_in_every_form(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "page", ["https://wandb.ai/me/amc/runs/x1/overview?nw=1", "https://forge.coreweave.com/wandb/me/amc/runs/x1"]
)
def test_the_page_of_a_run_is_read_like_that_of_a_sweep(page: str) -> None:
    expected = Reference("x1", "amc", "me", CLOUD_URL, ("run",))
    assert parse_reference(page, ("run", "sweep")) == parse_reference(page, ("run",)) == expected
    with pytest.raises(BackendError, match="is the page of a run; a sweep is needed"):
        parse_reference(page)


@pytest.mark.parametrize("prefix", ["", "wandb/"])
def test_a_server_under_a_path_has_pages_of_runs_and_sweeps(prefix: str) -> None:
    for word, kind in (("runs", "run"), ("sweeps", "sweep")):
        found = parse_reference(f"https://wandb.example.org/{prefix}me/amc/{word}/x1", ("run", "sweep"))
        assert (found.id, found.project, found.entity, found.kinds) == ("x1", "amc", "me", (kind,))
        assert found.base_url == "https://wandb.example.org"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b/c/d",
        "https://wandb.ai/me/amc/reports/x",
        "me//x",
        "$(rm)",
        "a;b",
        "a\u202eb",
        "a\tb",
        "https://[x/e/p/runs/i",
    ],
)
def test_a_text_that_names_no_sweep_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(BackendError, match="ENTITY/PROJECT/ID"):
        parse_reference(text)


@dataclass
class _Sweep:
    id: str


@dataclass
class _Project:
    name: str
    ids: list[str]
    listed: int = 0

    def sweeps(self) -> list[_Sweep]:
        self.listed += 1
        return [_Sweep(sweep_id) for sweep_id in self.ids]


@dataclass
class _Api:
    held: dict[str, list[_Project]]
    default_entity: str | None = "me"
    asked: list[str] = field(default_factory=list)

    def projects(self, entity: str | None = None) -> list[_Project]:
        self.asked.append(str(entity))
        return self.held.get(str(entity), [])

    def sweep(self, path: str) -> _Sweep:
        entity, project, sweep_id = path.split("/")
        held = [
            candidate
            for candidate in self.held.get(entity, [])
            if candidate.name == project and sweep_id in candidate.ids
        ]
        if not held:
            raise ValueError(f"Could not find sweep {path}")  # what the client says
        return _Sweep(sweep_id)


_HELD = {"me": [_Project("amc", ["aaa", "bbb"]), _Project("other", ["bbb", "ccc"])], "team": [_Project("amc", ["ddd"])]}


@pytest.mark.parametrize(
    ("text", "flags", "environ", "expected"),
    [
        ("ccc", {}, {}, "me/other/ccc"),
        ("bbb", {"project": "amc"}, {}, "me/amc/bbb"),
        ("bbb", {}, {"WANDB_PROJECT": "other"}, "me/other/bbb"),
        ("ddd", {"entity": "team"}, {"WANDB_ENTITY": "me"}, "team/amc/ddd"),
        ("team/amc/ddd", {"entity": "me"}, {}, "team/amc/ddd"),
        ("amc/aaa", {}, {}, "me/amc/aaa"),
    ],
)
def test_an_id_is_searched_in_the_named_or_in_all_projects(
    text: str, flags: dict[str, str], environ: dict[str, str], expected: str
) -> None:
    assert find_sweep(parse_reference(text), _Api(_HELD), environ=environ, **flags) == expected


def test_an_ambiguous_id_lists_its_candidates() -> None:
    with pytest.raises(TargetNotFoundError) as error:
        find_sweep(Reference("bbb"), _Api(_HELD), environ={})
    assert error.value.candidates == ["me/amc/bbb", "me/other/bbb"]


def test_an_unknown_id_lists_similar_ones() -> None:
    with pytest.raises(TargetNotFoundError) as error:
        find_sweep(Reference("aab"), _Api(_HELD), environ={})
    assert "me/amc/aaa" in error.value.candidates


def test_an_existing_sweep_is_found_without_listing_sweeps() -> None:
    api = _Api({"me": [_Project("amc", ["aaa", "bbb"]), _Project("other", ["ccc"])]})
    assert find_sweep(parse_reference("ccc"), api, environ={}) == "me/other/ccc"
    assert [project.listed for project in api.held["me"]] == [0, 0]
    with pytest.raises(TargetNotFoundError):
        find_sweep(parse_reference("ccd"), api, environ={})
    assert [project.listed for project in api.held["me"]] == [1, 1]
