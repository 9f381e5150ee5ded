"""The HDF5 file in the layout of RadioML 2018.01A: checks, labels of all rows, and gathering of rows.

Layout: ``X`` float32 (N, 1024, 2) holding I and Q, ``Y`` one-hot integers (N, 24), ``Z`` integers (N, 1), SNR in dB.
Rows are found by Y and Z, because files have different orders.

A file of other classes has as many columns of Y as it has classes, and names them in its attribute ``classes``. The
names are in the file, because a list of names beside it gets lost or is taken for another file's: ``classes.txt`` of
RadioML's archive names the columns wrongly, and nobody sees it in the scores.

In names: N all rows of the file, B the rows asked for, K columns of Y: 24 where the file does not name them.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from amc_core.config import ConfigError
from amc_core.data.storage import HeldInRam, HeldOnDevice, NoRoomError, Tell, choose_storage, find_room, silent
from amc_core.data.text_attribute import DamagedTextsError, read_texts
from amc_core.files import exists, is_file
from amc_core.modulations import (
    CLASSES,
    FILE_CLASSES,
    checked_names,
    class_names,
    complete_label_sets,
    label_set_of,
    label_set_text,
)
from amc_sweeps.number_formats import listed, quoted, shortened

if TYPE_CHECKING:
    import torch

FRAME_LENGTH = 1024
_NAMES = "classes"  # attribute of the file
_LAYOUT = (
    f"X float32 (N, {FRAME_LENGTH}, 2), Y one-hot integer (N, {len(CLASSES)}) and Z integer (N, 1): "
    "the layout of RadioML 2018.01A"
)
_WRITE_NAMES = (
    f"python -c \"import h5py, numpy; h5py.File('FILE', 'r+').attrs['{_NAMES}'] = numpy.array(['NAME', 'NAME'], 'S')\""
)
_REMEDY = "give the path of a RadioML 2018.01A file, or write one with: amc-data synth FILE"
_LEVEL_STEP_DB = 2  # of RadioML 2018.01A
_LABEL_CHUNK = 1 << 18  # rows of Y read at once: 50 MB of the original file's int64
_HEAD = 32  # samples
_DAMAGED = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)  # of h5py
_SAMPLED_ROWS = 16  # rows of X that enter the fingerprint


class DataError(ValueError):
    """A data file that cannot be used; the message says what was given, what is expected and what to do next."""


class UnknownClassError(DataError):
    """A label set names a class that the file does not have: the configuration is wrong, or the file."""


class RadioMLFile:
    """An open file: labels of every row in memory, frames on disk until ``hold`` copies them elsewhere.

    Rows of X come through a memory map where the dataset is contiguous and uncompressed (more than ten times as fast as
    h5py's fancy indexing), and through h5py otherwise.

    Args:
        path: the HDF5 file.
        storage: where ``hold`` puts frames: ``memmap`` (refuses a file that cannot be mapped), ``ram``,
            ``ram_float16``, ``device``, or ``auto``: what fits.

    Raises:
        DataError: the file is missing, truncated, not HDF5, or not in the layout.
    """

    def __init__(self, path: Path | str, *, storage: str = "auto") -> None:
        self.path = Path(path)
        self._storage = storage
        self._ram: HeldInRam | None = None
        self._device: HeldOnDevice | None = None
        self._file = _open(self.path)
        try:
            with _named_damage(self.path):
                self.classes = _class_names(self.path, self._file)  # of every column of Y
                x_dataset, y_dataset, z_dataset = _checked_datasets(self.path, self._file, len(self.classes))
                self.n_frames = int(x_dataset.shape[0])
                self.column_N = _columns(self.path, y_dataset)
                self.snr_db_N = _snr_levels(self.path, z_dataset)
                memory_map = _memory_map(self.path, x_dataset, required=storage == "memmap")
                self.is_memory_mapped = memory_map is not None
                self._frames: Any = x_dataset if memory_map is None else memory_map
                self.fingerprint = self._fingerprint()
        except BaseException:
            self._file.close()
            raise

    def frames(self, rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Gather rows in the given order: float32 (B, 1024, 2).

        Raises:
            DataError: reading failed (a damaged or vanished file).
        """
        return self._gather(rows_B) if self._ram is None else self._ram.frames(rows_B)

    def heads(self, rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Gather the first 32 samples of rows: float32 (B, 32, 2). None where that reads whole frames from the disk."""
        if self._ram is not None:
            return self._ram.heads(rows_B, _HEAD)
        if not self.is_memory_mapped:
            return None
        return np.ascontiguousarray(self._frames[rows_B, :_HEAD], dtype=np.float32)

    def hold(self, rows_M: npt.NDArray[np.int64], device: torch.device | None = None, tell: Tell = silent) -> str:
        """Copy these rows to where ``storage`` says. After a copy, no other row can be read.

        Args:
            rows_M: the rows.
            device: the GPU, if there is one.
            tell: prints a line on the progress, every ten seconds.

        Returns:
            memmap, file (through h5py), ram, ram_float16 or device.

        Raises:
            ConfigError: no room there, or no GPU.
            DataError: reading failed.
        """
        room = find_room(device)
        try:
            storage = choose_storage(
                self._storage, n_frames=len(rows_M), is_contiguous=self.is_memory_mapped, room=room
            )
        except NoRoomError as error:
            raise ConfigError([str(error)]) from error
        if storage == "device":
            assert device is not None  # without a device there is no room on it
            self._device = HeldOnDevice(self._gather, rows_M, self.n_frames, device, tell)
        elif storage in {"ram", "ram_float16"}:
            dtype = np.float32 if storage == "ram" else np.float16
            self._ram = HeldInRam(self._gather, rows_M, self.n_frames, dtype, tell)
        return storage

    @property
    def present(self) -> tuple[str, ...]:
        """The classes that have frames, in the order of the columns."""
        return tuple(self.classes[column] for column in np.unique(self.column_N))

    def label_set(self, label_set: str) -> str:
        """Return a label set whose classes do not depend on the file: for ``file`` those that have frames here.

        Raises:
            UnknownClassError: the file lacks a class of the label set.
            DataError: the file has frames of one class only.
        """
        if label_set == FILE_CLASSES:
            try:
                return label_set_of(self.present)
            except ValueError as error:
                raise DataError(f"{self.path}: label_set {label_set}: {error}; {_use(self)}") from error
        if problem := _unknown_classes(label_set, self.classes):
            raise UnknownClassError(f"{self.path}: {problem}; {_use(self)}")
        return label_set

    @property
    def is_on_device(self) -> bool:
        """Whether a GPU holds the frames."""
        return self._device is not None

    def positions_on_device(self, rows_B: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return where ``hold`` put rows: (B,) on the GPU. This waits for the GPU."""
        return self._held_on_device().positions(rows_B)

    def frames_on_device(self, position_B: torch.Tensor) -> torch.Tensor:
        """Gather positions of ``positions_on_device`` in the given order: float32 (B, 1024, 2) on the GPU."""
        return self._held_on_device().frames(position_B)

    def _held_on_device(self) -> HeldOnDevice:
        if self._device is None:
            raise ValueError("the frames are not on a device: hold() puts them there")
        return self._device

    def _gather(self, rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        try:
            if self.is_memory_mapped:
                return np.ascontiguousarray(self._frames[rows_B], dtype=np.float32)
            different_U, place_B = np.unique(rows_B, return_inverse=True)  # h5py wants increasing indices
            return np.asarray(self._frames[different_U], dtype=np.float32)[place_B]
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self.path}: reading frames failed ({error}); check the disk and the file") from error

    def close(self) -> None:
        """Close the file; a memory map ends with its last user."""
        self._file.close()

    def __enter__(self) -> RadioMLFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fingerprint(self) -> str:
        """Return 16 hex digits that depend on the number of rows, every label, own names of classes, and a few frames.

        They do not depend on the path, and are quick to compute for 20 GB.
        """
        digest = hashlib.sha256(f"radioml:{self.n_frames}x{FRAME_LENGTH}x2".encode())
        digest.update(self.column_N.astype("<i2").tobytes())
        digest.update(self.snr_db_N.astype("<i2").tobytes())
        if self.classes != CLASSES:
            digest.update(json.dumps(self.classes).encode())
        sample_B = np.unique(np.linspace(0, self.n_frames - 1, _SAMPLED_ROWS).astype(np.int64))
        digest.update(self.frames(sample_B).astype("<f4").tobytes())
        return digest.hexdigest()[:16]


def require_classes(path: Path, label_set: str) -> None:
    """Refuse a file that cannot train a label set, as far as that is known without reading its labels.

    Raises:
        UnknownClassError: the file lacks a class of the label set.
        DataError: the file is missing, truncated, or not HDF5.
    """
    with _open(path) as file:
        classes = _class_names(path, file)
    if label_set != FILE_CLASSES and (problem := _unknown_classes(label_set, classes)):
        raise UnknownClassError(f"{path}: {problem}; it has {listed(classes, 24)}")


def _unknown_classes(label_set: str, classes: Sequence[str]) -> str:
    """Say which classes of a label set a file lacks; empty: none."""
    unknown = [name for name in class_names(label_set) if name not in classes]
    if not unknown:
        return ""
    near = difflib.get_close_matches(unknown[0], classes, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    named = label_set_text(label_set)
    return f"label_set {named} has classes that the file does not have: {listed(unknown)}{hint}"


@dataclass(frozen=True)
class Selection:
    """The M rows of a label set and an SNR range, with the targets that a model learns."""

    label_set: str  # not ``file``: the classes that it stands for
    modulations: tuple[str, ...]  # name of every modulation class
    levels_db: tuple[int, ...]  # SNR of every SNR class, increasing
    rows: npt.NDArray[np.int64]  # row in the file
    modulation: npt.NDArray[np.int64]  # index into modulations
    snr: npt.NDArray[np.int64]  # index into levels_db


def select(data: RadioMLFile, label_set: str, snr_min_db: int, snr_max_db: int) -> Selection:
    """Choose rows by label; the SNR classes are the levels that occur in the range.

    Raises:
        DataError: the file lacks a class, the range is empty in it, or a class has no frame at one of its levels.
    """
    label_set = data.label_set(label_set)
    in_range_N = (data.snr_db_N >= snr_min_db) & (data.snr_db_N <= snr_max_db)
    found_db = np.unique(data.snr_db_N[in_range_N & (_class_of_rows(data, class_names(label_set)) >= 0)])
    if not len(found_db):
        present = sorted({int(level) for level in np.unique(data.snr_db_N)})
        raise DataError(
            f"{data.path}: no frame of label_set {label_set_text(label_set)} between {snr_min_db} and {snr_max_db} dB; "
            f"the file holds the SNR levels {quoted(present, 200)} dB; {_use(data)}"
        )
    selection = select_labels(data, label_set, tuple(int(level) for level in found_db))
    if (cells_KL := cell_counts(selection)).min() == 0:
        raise DataError(f"{data.path}: {_incomplete(data, selection, cells_KL)}")
    return selection


def select_labels(data: RadioMLFile, label_set: str, levels_db: tuple[int, ...]) -> Selection:
    """Choose the rows of a label set at these levels; a class or a level may have no frame."""
    names = class_names(label_set)
    class_N = _class_of_rows(data, names)
    rows_M = np.flatnonzero(np.isin(data.snr_db_N, levels_db) & (class_N >= 0))
    return Selection(
        label_set=label_set,
        modulations=names,
        levels_db=levels_db,
        rows=rows_M.astype(np.int64),
        modulation=class_N[rows_M],
        snr=np.searchsorted(levels_db, data.snr_db_N[rows_M]).astype(np.int64),
    )


def _class_of_rows(data: RadioMLFile, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the place of every row's class in these names, -1 for another class: (N,)."""
    place_K = np.array([names.index(name) if name in names else -1 for name in data.classes], dtype=np.int64)
    place_N: npt.NDArray[np.int64] = place_K[data.column_N]
    return place_N


def cell_counts(selection: Selection, positions_B: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Return the number of frames (K, L) of every class at every level, of all frames or of those at some positions."""
    part = slice(None) if positions_B is None else positions_B
    n_modulations, n_levels = len(selection.modulations), len(selection.levels_db)
    cell_B = selection.modulation[part] * n_levels + selection.snr[part]
    return np.bincount(cell_B, minlength=n_modulations * n_levels).reshape(n_modulations, n_levels)


def missing_levels_db(data: RadioMLFile, snr_min_db: int, snr_max_db: int) -> tuple[int, ...]:
    """Return the levels of a range that the file lacks, on the grid of the file's own levels."""
    present = np.unique(data.snr_db_N)
    step = int(np.diff(present).min()) if len(present) > 1 else _LEVEL_STEP_DB
    grid = (db for db in range(snr_min_db, snr_max_db + 1) if (db - int(present[0])) % step == 0)
    return tuple(db for db in grid if db not in present)


def _incomplete(data: RadioMLFile, selection: Selection, cells_KL: npt.NDArray[np.int64]) -> str:
    """Say which frames a selection lacks, and what to do."""
    label_set, names = selection.label_set, selection.modulations
    named = f"label_set {label_set_text(label_set)}"
    rule = f"a trial needs every class of its label_set at every SNR level, and {named} is not complete"
    if absent := [names[place] for place in np.flatnonzero(cells_KL.sum(axis=1) == 0)]:
        synth = f"; amc-data synth FILE --classes {label_set} writes one" if set(names) <= set(CLASSES) else ""
        return f"{rule}: the file has no frame of {listed(absent, 24)}; {_use(data)}, or a file with all of them{synth}"
    gaps = [
        f"{names[place]} at {_levels(np.asarray(selection.levels_db)[cells_KL[place] == 0])} dB"
        for place in np.flatnonzero(cells_KL.min(axis=1) == 0)
    ]
    return (
        f"{rule}: the file has no frame of {listed(gaps)}; choose snr_min_db and snr_max_db without these levels, or "
        "use a file that has them"
    )


def _use(data: RadioMLFile) -> str:
    """Say which classes have frames, and which label sets they make."""
    present = data.present
    ways = [f"label_set {word}" for word in complete_label_sets(present)]
    if len(present) > 1:
        ways.append(f"label_set {FILE_CLASSES} for all of these, or some of them such as {','.join(present[:2])}")
    way = f"use {' or '.join(ways)}" if ways else "use a file of 2 classes or more"
    return f"it has frames of {listed(present, 24)}: {way}"


def _levels(levels_db: npt.NDArray[Any]) -> str:
    return listed([str(level) for level in levels_db.tolist()], most=6)


def _open(path: Path) -> Any:
    if not exists(path):
        raise DataError(f"{shortened(str(path), 4096)}: no such file (working folder: {Path.cwd()}); {_REMEDY}")
    if not is_file(path):
        raise DataError(f"{path}: not a file; {_REMEDY}")
    try:
        return h5py.File(path, "r")
    except PermissionError as error:
        raise DataError(f"{path}: not readable for this user; check its permissions") from error
    except (OSError, RuntimeError, ValueError) as error:
        size = path.stat().st_size
        if "unable to lock file" in str(error):
            raise DataError(
                f"{path}: another process has it open for writing; wait until it is closed. Where no process has it "
                "(a network disk may keep an old lock), set HDF5_USE_FILE_LOCKING=FALSE"
            ) from error
        if "truncated" in str(error):
            raise DataError(f"{path}: truncated after {size} bytes ({error}); copy or write it again") from error
        raise DataError(f"{path}: {size} bytes that are not a readable HDF5 file ({error}); {_REMEDY}") from error


@contextlib.contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    """Say that a file is damaged, whatever h5py raises while its structure is read."""
    try:
        yield
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(
            f"{path}: damaged, or not in the layout ({type(error).__name__}: {str(error)[:300]}); copy it again"
        ) from error


def _class_names(path: Path, file: Any) -> tuple[str, ...]:
    """Return the names of Y's columns: the attribute ``classes``, or RadioML's."""
    expected = f"its attribute {_NAMES} must name every column of Y"
    try:
        if _NAMES not in file.attrs:
            return CLASSES
        return checked_names([name.strip() for name in read_texts(path, file, _NAMES)])
    except DamagedTextsError as error:
        raise DataError(f"{path}: damaged: {error}; copy it again") from error
    except (*_DAMAGED, MemoryError) as error:
        raise DataError(f"{path}: {expected}: {error}; write it again: {_WRITE_NAMES}") from error


def _checked_datasets(path: Path, file: Any, n_columns: int) -> tuple[Any, Any, Any]:
    problems = []
    datasets = {}
    for name, shape in (("X", (FRAME_LENGTH, 2)), ("Y", (n_columns,)), ("Z", (1,))):
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            problems.append(f"no dataset {name}")
            continue
        datasets[name] = dataset
        if dataset.shape[1:] != shape or (dataset.dtype != "f4" if name == "X" else dataset.dtype.kind not in "iu"):
            problems.append(f"{name} is {dataset.dtype} {dataset.shape}")
            if name == "Y":
                problems.append(_wrong_columns(file, n_columns))
    if len(datasets) == 3 and len({dataset.shape[0] for dataset in datasets.values()}) != 1:
        lengths = ", ".join(f"{name} {dataset.shape[0]}" for name, dataset in datasets.items())
        problems.append(f"different numbers of rows: {lengths}")
    elif "X" in datasets and datasets["X"].shape[0] == 0:
        problems.append("no rows")
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}; expected {_LAYOUT}; {_REMEDY}")
    return datasets["X"], datasets["Y"], datasets["Z"]


def _wrong_columns(file: Any, n_columns: int) -> str:
    """Say what to do about Y with another number of columns than there are names."""
    if _NAMES in file.attrs:
        return f"the attribute {_NAMES} names {n_columns} classes, so Y must be an integer (N, {n_columns})"
    return f"a file of other classes than RadioML's must name the columns of Y: {_WRITE_NAMES}"


def _columns(path: Path, dataset: Any) -> npt.NDArray[np.int16]:
    column_N = np.empty(dataset.shape[0], dtype=np.int16)
    for start in range(0, len(column_N), _LABEL_CHUNK):
        one_hot_BK = _read(path, dataset, slice(start, start + _LABEL_CHUNK))
        wrong_B = (one_hot_BK.sum(axis=1) != 1) | (one_hot_BK.max(axis=1) != 1) | (one_hot_BK.min(axis=1) != 0)
        if wrong_B.any():
            row = int(np.flatnonzero(wrong_B)[0])
            raise DataError(
                f"{path}: Y row {start + row} is {one_hot_BK[row].tolist()}, not one-hot; expected {_LAYOUT}; {_REMEDY}"
            )
        column_N[start : start + len(one_hot_BK)] = one_hot_BK.argmax(axis=1)
    return column_N


def _snr_levels(path: Path, dataset: Any) -> npt.NDArray[np.int16]:
    snr_db_N = _read(path, dataset, slice(None))[:, 0]
    if abs(snr_db_N).max() > 1000:
        raise DataError(
            f"{path}: Z reaches {abs(snr_db_N).max()}, too far for an SNR in dB; expected {_LAYOUT}; {_REMEDY}"
        )
    return np.asarray(snr_db_N, dtype=np.int16)


def _read(path: Path, dataset: Any, rows: slice) -> npt.NDArray[Any]:
    try:
        return np.asarray(dataset[rows])
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: reading {dataset.name} failed ({error}); copy or write the file again") from error


def _memory_map(path: Path, dataset: Any, *, required: bool) -> np.memmap[Any, Any] | None:
    offset = dataset.id.get_offset()  # None for chunked, compressed, compact or never written data
    if offset is None or not dataset.dtype.isnative:
        if required:
            raise DataError(
                f"{path}: storage=memmap needs a contiguous, uncompressed X, this one is chunked or compressed; "
                "use storage=auto, or repack it: h5repack -l X:CONTI -f X:NONE IN OUT"
            )
        return None
    if offset + dataset.nbytes > path.stat().st_size:
        raise DataError(
            f"{path}: truncated: X ends at byte {offset + dataset.nbytes}, the file at {path.stat().st_size}; "
            "copy or write it again"
        )
    return np.memmap(path, dtype=dataset.dtype, mode="r", offset=offset, shape=dataset.shape)
