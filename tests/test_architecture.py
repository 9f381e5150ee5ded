"""Imports point one way, every file is in a room, and setup.cfg lists the packages that exist."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from repository import repository_files

ROOT = Path(__file__).parents[1]

# Who may import whom, of ours; and which large libraries nobody in a package may import at all.
ARROWS: dict[str, set[str]] = {
    "amc_core": set(),
    "amc_sweeps": set(),
    "amc_server": {"amc_sweeps"},
    "amc_analysis": {"amc_sweeps", "amc_core"},
    "amc_agents": {"amc_sweeps", "amc_core", "amc_server", "amc_analysis"},
}
BANNED: dict[str, set[str]] = {
    "amc_core": {"wandb", "pandas"},
    "amc_sweeps": {"numpy", "torch", "wandb", "pandas", "timm", "torchvision"},
    "amc_server": {"torch", "wandb", "pandas", "timm", "torchvision"},
    "amc_analysis": {"torch", "timm", "torchvision"},
    "amc_agents": set(),
}
# The rooms of each wing, and the files beside them, lowest first: each imports only what stands before it.
ROOMS: dict[str, list[str]] = {
    "amc_core": [
        *("files", "missing_packages", "unread_output", "command_line", "verdicts", "modulations", "metric_names"),
        "config",
        *("machine", "data", "synthesis", "inputs", "audit", "models", "training", "evaluate_checkpoint", "commands"),
    ],
    "amc_sweeps": ["values", "number_formats", "bounded_texts", "grammar", "runs", "browser", "backend"],
    "amc_server": [
        *("errors", "json_texts", "ids", "clock", "clients", "auth", "server_log"),
        *("store", "bayes", "scheduling", "pages", "http", "graphql"),
        *("app", "process"),
    ],
    "amc_agents": [
        *("background_process", "notify", "open_target", "slurm", "sweep_control", "next_run", "sweep_status"),
        *("preflight", "trial", "repeats", "cleaning", "disk_room", "doctor", "fleet", "commands"),
    ],
    "amc_analysis": [
        *("runs", "reading", "results", "effects", "dynamics", "rules", "next_sweep", "statements"),
        *("analyse", "known_importances", "report", "cli"),
    ],
}
MOST_MODULES = 20  # in one folder
LONGEST_CHAIN = 8  # modules of one wing that import each other in a row
LONGEST_FUNCTION = 100  # lines
# What every wing may import: these need the standard library alone, and click.
SHARED = {
    *("amc_core.files", "amc_core.missing_packages", "amc_core.unread_output", "amc_core.command_line"),
    "amc_sweeps.number_formats",
}
# What amc_analysis may take of amc_core: the modules that are free of torch.
TORCH_FREE = {
    "amc_core",
    "amc_core.config",
    "amc_core.training.evaluation_files",
    "amc_core.metric_names",
    "amc_core.modulations",
}


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _source_folders() -> dict[str, Path]:
    entries = (line.split("=") for line in _lines(_setup_cfg()["options"]["package_dir"]))
    return {name.strip(): ROOT / folder.strip() for name, folder in entries}


def _imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module)
            names.update(name for alias in node.names if _is_module(name := f"{node.module}.{alias.name}"))
    return names


def _is_module(name: str) -> bool:
    top, *rest = name.split(".")
    folder = _source_folders().get(top)
    return folder is not None and folder.joinpath(*rest).with_suffix(".py").is_file()


def _modules(package: str) -> dict[str, Path]:
    folder = _source_folders()[package]
    files = ((file.relative_to(folder).with_suffix("").parts, file) for file in folder.rglob("*.py"))
    return {".".join([package, *parts]): file for parts, file in files if parts[-1] != "__init__"}


@pytest.mark.parametrize("package", ARROWS)
def test_imports_point_one_way(package: str) -> None:
    wrong = []
    for file in _source_folders()[package].rglob("*.py"):
        for name in _imports(file):
            top = name.partition(".")[0]
            if name in SHARED:
                continue
            if (top in ARROWS and top != package and top not in ARROWS[package]) or top in BANNED[package]:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert not wrong


def _room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_one_way(package: str) -> None:
    folder = _source_folders()[package]
    order = {room: place for place, room in enumerate(ROOMS[package])}
    wrong = []
    for file in folder.rglob("*.py"):
        here = file.relative_to(folder).with_suffix("").parts[0]
        for name in _imports(file) if here != "__init__" else ():
            there = _room(name)
            if name.startswith(f"{package}.") and there != here and order[there] > order[here]:
                wrong.append(f"{here}: {file.name} imports {name}")
    assert not wrong


@pytest.mark.parametrize("package", ROOMS)
def test_every_file_is_in_a_room(package: str) -> None:
    folder = _source_folders()[package]
    there = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__init__.py")}
    assert there - {"__init__"} == set(ROOMS[package])


@pytest.mark.parametrize("package", ROOMS)
def test_tests_lie_in_rooms_of_their_wing(package: str) -> None:
    # A test of several rooms, or of a file beside the rooms, lies directly in its wing's folder.
    folder = ROOT / "tests" / package.removeprefix("amc_")
    used = {str(file.parent.relative_to(folder)) for file in folder.rglob("test_*.py")}
    assert {room for room in used - {"."} if not (_source_folders()[package] / room).is_dir()} == set()


def test_no_folder_has_too_many_modules() -> None:
    folders = {folder for top in _source_folders().values() for folder in [top, *top.rglob("*")] if folder.is_dir()}
    sizes = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: size for name, size in sizes.items() if size > MOST_MODULES + 1} == {}  # and __init__.py


@pytest.mark.parametrize("package", ROOMS)
def test_no_chain_of_imports_is_long_or_closed(package: str) -> None:
    modules = _modules(package)
    imports = {name: _imports(file) & modules.keys() for name, file in modules.items()}
    chains: dict[str, list[str]] = {}

    def chain(name: str, importers: tuple[str, ...] = ()) -> list[str]:
        assert name not in importers, f"a circle of imports: {' > '.join([*importers, name])}"
        if name not in chains:
            chains[name] = [
                name,
                *max((chain(each, (*importers, name)) for each in imports[name]), key=len, default=[]),
            ]
        return chains[name]

    longest = max((chain(name) for name in modules), key=len)
    assert len(longest) <= LONGEST_CHAIN, " > ".join(longest)


@pytest.mark.parametrize("package", ROOMS)
def test_no_function_is_long(package: str) -> None:
    functions = {
        f"{name}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, file in _modules(package).items()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in functions.items() if lines > LONGEST_FUNCTION} == {}


def test_analysis_takes_only_the_torch_free_part_of_the_core() -> None:
    taken = {name for file in _source_folders()["amc_analysis"].rglob("*.py") for name in _imports(file)}
    assert {name for name in taken if name.startswith("amc_core")} <= TORCH_FREE | SHARED


@pytest.mark.parametrize("module", sorted(TORCH_FREE | SHARED | {"amc_core.machine.memory"}))
def test_the_torch_free_part_is_free_of_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_package_list_is_what_is_on_the_disk() -> None:
    listed = set(_lines(_setup_cfg()["options"]["packages"]))
    on_disk = {
        ".".join([name, *file.parent.relative_to(folder).parts])
        for name, folder in _source_folders().items()
        for file in folder.rglob("__init__.py")
    }
    assert listed == on_disk


def test_sweep_files_lie_in_no_package() -> None:
    # W&B's own engine is a package named `sweeps`: an __init__.py there would hide it.
    assert not (ROOT / "sweeps" / "__init__.py").exists()


@pytest.mark.parametrize("command", ["amc_core.commands", "amc_agents.commands", "amc_analysis.cli"])
def test_help_imports_neither_torch_nor_wandb_nor_pandas(command: str) -> None:
    program = (
        f"import sys; from {command} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'torch', 'wandb', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_no_file_names_a_path_of_one_machine() -> None:
    places = ("/work" + "/", "/root" + "/", "/opt/py" + "pi")
    found = []
    for name in repository_files():
        file = ROOT / name
        if not file.is_file():
            continue
        content = file.read_bytes()
        if b"\0" not in content:
            found.extend(f"{name}: {place}" for place in places if place.encode() in content)
    assert not found
