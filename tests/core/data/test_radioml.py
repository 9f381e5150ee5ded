"""Reading files: labels, gathering rows, and every fault of a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny_files import raw_file, synthetic_file

from amc_core.config import ConfigError
from amc_core.data import storage as storage_module
from amc_core.data import text_attribute
from amc_core.data.radioml import (
    DataError,
    RadioMLFile,
    UnknownClassError,
    missing_levels_db,
    require_classes,
    select,
    select_labels,
)
from amc_core.data.storage import HeldOnDevice, NoRoomError, Room, choose_storage, find_room, told_parts
from amc_core.modulations import CLASSES, LABEL_SETS
from amc_core.synthesis.file import write_file

VARIABLE_LENGTH = h5py.string_dtype()


def test_frames_come_by_memory_map_in_the_given_order(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "a.hdf5")
    with h5py.File(path) as file:
        expected = file["X"][:]
    with RadioMLFile(path) as data:
        assert data.is_memory_mapped
        frames = data.frames(np.array([3, 0, 2]))
    assert frames.dtype == np.float32
    assert np.array_equal(frames, expected[[3, 0, 2]])


def test_a_chunked_file_gives_the_same_frames_and_the_same_fingerprint(tmp_path: Path) -> None:
    contiguous = raw_file(tmp_path / "a.hdf5")
    chunked = raw_file(tmp_path / "b.hdf5", X=None)
    with h5py.File(contiguous) as source, h5py.File(chunked, "a") as target:
        target.create_dataset("X", data=source["X"][:], chunks=(1, 1024, 2), compression="gzip")
    with RadioMLFile(contiguous) as one, RadioMLFile(chunked) as other:
        assert not other.is_memory_mapped
        for rows in (np.array([2, 0, 3]), np.array([2, 0, 2, 2, 1])):
            assert np.array_equal(one.frames(rows), other.frames(rows))
        assert one.fingerprint == other.fingerprint
    with pytest.raises(DataError, match="h5repack"):
        RadioMLFile(chunked, storage="memmap")


def test_labels_come_from_y_and_z_and_not_from_the_order_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LABEL_SETS, "two", (3, 4))  # type: ignore[call-overload]
    with RadioMLFile(raw_file(tmp_path / "a.hdf5")) as data:
        assert [CLASSES[column] for column in data.column_N] == ["BPSK", "QPSK", "QPSK", "OQPSK"]
        assert data.snr_db_N.tolist() == [0, 2, 0, 2]
        selection = select(data, "two", 0, 0)
    assert selection.rows.tolist() == [0, 2]
    assert selection.modulation.tolist() == [0, 1]
    assert selection.levels_db == (0,)


def test_the_fingerprint_follows_the_content_and_not_the_path(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "a.hdf5")
    moved = tmp_path / "elsewhere.hdf5"
    moved.write_bytes(path.read_bytes())
    relabelled = raw_file(tmp_path / "c.hdf5", Z=np.array([[0], [2], [0], [4]]))
    prints = []
    for file in (path, moved, relabelled):
        with RadioMLFile(file) as data:
            prints.append(data.fingerprint)
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] == "7276523194818d77"  # on every machine


def test_a_missing_file_is_named_with_the_way_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.hdf5: no such file.*amc-data synth"):
        RadioMLFile(tmp_path / "nowhere.hdf5")
    with pytest.raises(DataError, match="not a file"):
        RadioMLFile(tmp_path)


@pytest.mark.parametrize("kept", [0.4, 0.999])
def test_a_truncated_file_is_called_truncated(tmp_path: Path, kept: float) -> None:
    path = raw_file(tmp_path / "a.hdf5")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match="truncated"):
        RadioMLFile(path)


def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.hdf5"
    path.write_text("hello")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        RadioMLFile(path)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        ({"Y": None}, "no dataset Y"),
        ({"X": np.zeros((4, 512, 2), np.float32)}, r"X is float32 \(4, 512, 2\)"),
        ({"X": np.zeros((4, 1024, 2))}, "X is float64"),
        ({"Y": np.eye(24, dtype=np.int64)[:3]}, "different numbers of rows"),
        ({"Y": np.eye(24)[[3, 4, 4, 23]]}, "Y is float64"),
        ({"Y": np.ones((4, 24), np.int64)}, "not one-hot"),
        ({"Z": np.zeros(4, np.int64)}, "Z is int64"),
    ],
)
def test_a_wrong_layout_is_refused_with_both_layouts(
    tmp_path: Path, replacement: dict[str, object], message: str
) -> None:
    path = raw_file(tmp_path / "a.hdf5", **replacement)
    with pytest.raises(DataError, match=message) as caught:
        RadioMLFile(path)
    assert "RadioML 2018.01A" in str(caught.value)


def test_a_file_without_a_complete_label_set_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "three.hdf5"
    write_file(path, modulations=["BPSK", "QPSK", "8PSK"], levels_db=[0, 10], frames_per_cell=2, seed=0)
    with RadioMLFile(path) as data, pytest.raises(DataError) as caught:
        select(data, "digital17", 0, 30)
    message = str(caught.value)
    assert "needs every class of its label_set at every SNR level" in message
    assert "no frame of 4ASK, 8ASK, 16PSK" in message
    assert (
        "has frames of BPSK, QPSK, 8PSK: use label_set file for all of these, or some of them such as BPSK,QPSK"
        in message
    )
    assert "amc-data synth FILE --classes digital17" in message
    digital = synthetic_file(tmp_path, levels_db=(0, 10), frames_per_cell=2)
    with RadioMLFile(digital) as data, pytest.raises(DataError, match="use label_set digital17 or label_set file"):
        select(data, "all24", 0, 30)


def test_a_class_that_lacks_a_level_is_refused_by_both(tmp_path: Path) -> None:
    path = synthetic_file(tmp_path, levels_db=(0, 10), frames_per_cell=1)
    with h5py.File(path, "r+") as raw:
        raw["Z"][raw["Y"][:, CLASSES.index("8PSK")].argmax()] = 10  # its only frame at 0 dB
    with RadioMLFile(path) as data, pytest.raises(DataError, match=r"no frame of 8PSK at 0 dB; choose snr_min_db"):
        select(data, "digital17", 0, 30)


@pytest.mark.parametrize(
    ("levels_db", "asked", "missing"),
    [
        ((0, 2, 4), (-4, 8), (-4, -2, 6, 8)),
        ((0, 2, 4), (0, 4), ()),
        ((0, 2, 6), (0, 6), (4,)),
        ((0, 10, 20), (-10, 29), (-10,)),
        ((10,), (8, 12), (8, 12)),
    ],
)
def test_levels_that_a_range_asks_for_in_vain_are_named(
    tmp_path: Path, levels_db: tuple[int, ...], asked: tuple[int, int], missing: tuple[int, ...]
) -> None:
    with RadioMLFile(synthetic_file(tmp_path, levels_db=levels_db, frames_per_cell=1)) as data:
        assert missing_levels_db(data, *asked) == missing


def test_a_label_set_without_frames_is_refused_with_what_the_file_holds(tmp_path: Path) -> None:
    with RadioMLFile(raw_file(tmp_path / "a.hdf5")) as data:
        with pytest.raises(DataError, match=r"holds the SNR levels \[0, 2\]"):
            select(data, "digital17", 10, 20)
        with pytest.raises(DataError, match="4ASK"):
            select(data, "digital17", 0, 2)


def own_file(path: Path, names: object, **replacements: object) -> Path:
    """Write four rows of three classes, with the attribute that names them: a list as texts of fixed length."""
    raw_file(path, **{"Y": np.eye(3, dtype=np.int64)[[0, 1, 1, 2]], **replacements})
    with h5py.File(path, "r+") as file:
        file.attrs["classes"] = np.array(names, "S") if isinstance(names, list) else names
    return path


@pytest.mark.parametrize("kind", [list, lambda names: np.array(names, dtype=VARIABLE_LENGTH)])
def test_a_file_may_name_its_own_classes(tmp_path: Path, kind: Callable[[list[str]], object]) -> None:
    with RadioMLFile(own_file(tmp_path / "a.hdf5", kind(["Wi-Fi 6", "bpsk", "LoRa"]))) as data:
        assert data.classes == data.present == ("Wi-Fi 6", "BPSK", "LoRa")
        everything = select_labels(data, data.label_set("file"), (0, 2))
        assert everything.label_set == "BPSK,LoRa,Wi-Fi 6"
        assert everything.modulation.tolist() == [2, 0, 0, 1]
        two = select_labels(data, "LoRa,Wi-Fi 6", (0, 2))
        assert (two.rows.tolist(), two.modulation.tolist()) == ([0, 3], [1, 0])
        with pytest.raises(DataError, match=r"digital17 has classes that the file does not have: 4ASK.*label_set file"):
            select(data, "digital17", 0, 2)
        with pytest.raises(DataError, match=r"not have: Lora \(did you mean LoRa\?\)"):
            select(data, "BPSK,Lora", 0, 2)


def test_names_of_classes_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    prints = {}
    for names in ("A,B,C", "A,C,B"):
        with RadioMLFile(own_file(tmp_path / f"{names}.hdf5", names.split(","))) as data:
            prints[names] = data.fingerprint
    plain = raw_file(tmp_path / "plain.hdf5")
    with RadioMLFile(plain) as data:
        prints["plain"] = data.fingerprint
    with h5py.File(plain, "r+") as file:
        file.attrs["classes"] = list(CLASSES)
    with RadioMLFile(plain) as data:
        assert data.fingerprint == prints["plain"]
    assert len(set(prints.values())) == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["A", "B"], r"Y is int64 \(4, 3\); the attribute classes names 2 classes, so Y must be an integer \(N, 2\)"),
        (["A", "B", "a"], "'a' is given twice"),
        (["A", "B", "C,D"], "'C,D' is not allowed: a name has 1 to 40 letters"),
        (["A", "B", ""], "'' is not allowed"),
        (["A", "B", "x\x1b[31m"], r"'x\\x1b\[31m' is not allowed"),
        (["A", "B", "x" * 41], "is not allowed"),
        (["A", "B", "f1.mod"], "is not allowed"),
        (["A", "B", "file"], "file is a label set, not a class"),
        ([str(number) for number in range(101)], "101 classes are too many: at most 100"),
        (b"\xff", "is not allowed"),
        (3, "names 1 classes"),
        (h5py.Empty("f4"), "not allowed"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path: Path, names: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        RadioMLFile(own_file(tmp_path / "a.hdf5", names))
    assert "\x1b" not in str(caught.value)


def test_a_damaged_attribute_or_header_is_called_damaged(tmp_path: Path) -> None:
    content = own_file(tmp_path / "a.hdf5", np.array(["A", "B", "C"], dtype="S12")).read_bytes()
    with h5py.File(tmp_path / "a.hdf5") as file:
        begin = file["X"].id.get_offset()
        end = begin + file["X"].nbytes
    path, refused = tmp_path / "damaged.hdf5", 0
    for position in [*range(0, begin, 7), *range(end, len(content), 7)]:
        for change in (0x01, 0xFF):
            damaged = bytes([content[position] ^ change])
            path.write_bytes(content[:position] + damaged + content[position + 1 :])
            try:
                with RadioMLFile(path) as data:
                    data.label_set("file")
            except DataError:
                refused += 1
    assert refused > 100


def test_names_that_the_library_cannot_read_end_and_stop_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_file(tmp_path / "a.hdf5", np.array(["A", "B", "C"], dtype=VARIABLE_LENGTH))
    content = bytearray(path.read_bytes())
    content[content.index(b"GCOL") + 24] = 255  # the length of the first text on the heap: HDF5 never returns
    path.write_bytes(content)
    monkeypatch.setattr(text_attribute, "_LIMIT_S", 1.0)
    with pytest.raises(DataError, match=r"damaged: HDF5 did not return .* attribute classes in 1 s; copy it again"):
        RadioMLFile(path)
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(DataError, match=r"damaged: HDF5 crashed \(SIGSEGV\) .* attribute classes; copy it again"):
        require_classes(path, "file")


def test_a_class_that_the_file_lacks_is_told_apart_from_a_bad_file(tmp_path: Path) -> None:
    path = own_file(tmp_path / "a.hdf5", ["A", "B", "C"])
    with RadioMLFile(path) as data, pytest.raises(UnknownClassError, match="does not have: D"):
        select(data, "A,D", 0, 2)
    with pytest.raises(UnknownClassError, match="does not have: D; it has A, B, C"):
        require_classes(path, "A,D")
    require_classes(path, "A,C")
    require_classes(path, "file")
    with pytest.raises(DataError, match="no such file"):
        require_classes(tmp_path / ("x" * 300), "file")


def test_a_long_label_set_is_not_repeated_whole(tmp_path: Path) -> None:
    many = ",".join(f"class {number:02}" for number in range(100))
    with RadioMLFile(raw_file(tmp_path / "a.hdf5")) as data, pytest.raises(DataError) as caught:
        select(data, many, 0, 2)
    assert "class 00,class 01,class 02,class 03,class 04,class 05 and 94 more" in str(caught.value)
    assert len(str(caught.value)) < 600
    names = [f"class {number:02}" for number in range(100)]
    path = own_file(tmp_path / "b.hdf5", names, Y=np.eye(100, dtype=np.int64)[[0, 1, 1, 2]])
    with RadioMLFile(path) as data, pytest.raises(DataError) as caught:
        select(data, many, 0, 2)
    assert len(str(caught.value)) < 900


def test_other_columns_without_names_are_refused_with_the_line_that_names_them(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "a.hdf5", Y=np.eye(3, dtype=np.int64)[[0, 1, 1, 2]])
    with pytest.raises(DataError, match=r"must name the columns of Y: python -c") as caught:
        RadioMLFile(path)
    line = str(caught.value).partition("python -c ")[2].partition("; expected")[0]
    program = line.strip('"').replace("FILE", str(path)).replace("['NAME', 'NAME']", "['A', 'B', 'C']")
    subprocess.run([sys.executable, "-c", program], check=True)
    with RadioMLFile(path) as data:
        assert data.present == ("A", "B", "C")


def test_one_class_makes_no_label_set(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "a.hdf5", Y=np.eye(24, dtype=np.int64)[[3, 3, 3, 3]])
    message = r"2 classes or more.*has frames of BPSK: use a file of 2 classes or more"
    with RadioMLFile(path) as data, pytest.raises(DataError, match=message):
        select(data, "file", 0, 2)


GIB = 1 << 30


@pytest.mark.parametrize(
    ("ram", "device", "is_contiguous", "chosen"),
    [
        (64, 80, True, "device"),  # 1.1 million frames: 4.25 GiB in float16, 8.5 in float32
        (64, 8, True, "memmap"),  # half of the GPU's memory is the model's
        (64, None, True, "memmap"),
        (64, None, False, "ram"),
        (12, None, True, "memmap"),  # a private copy of 4.25 GiB in each of several trials is worse
        (12, None, False, "ram_float16"),
        (6, None, True, "memmap"),
        (6, None, False, "file"),
    ],
)
def test_auto_takes_the_fastest_place_that_fits(ram: int, device: int | None, is_contiguous: bool, chosen: str) -> None:
    room = Room(ram=ram * GIB, device=None if device is None else device * GIB)
    assert choose_storage("auto", n_frames=1_114_112, is_contiguous=is_contiguous, room=room) == chosen


@pytest.mark.parametrize(
    ("storage", "room", "message"),
    [
        ("device", Room(ram=64 * GIB, device=None), "needs an NVIDIA GPU"),
        ("device", Room(ram=64 * GIB, device=4 * GIB), "device needs 4.2 GiB, 4.0 are free on the GPU"),
        ("ram", Room(ram=8 * GIB, device=None), "ram needs 8.5 GiB, 8.0 are free in memory; use ram_float16"),
        ("ram_float16", Room(ram=2 * GIB, device=None), "use memmap"),
    ],
)
def test_a_named_place_without_room_is_refused_with_what_to_do(storage: str, room: Room, message: str) -> None:
    with pytest.raises(NoRoomError, match=message):
        choose_storage(storage, n_frames=1_114_112, is_contiguous=True, room=room)
    assert choose_storage(storage, n_frames=10, is_contiguous=True, room=Room(ram=GIB, device=GIB)) == storage


def test_this_machine_has_room_and_the_cpu_is_no_device() -> None:
    assert find_room(None).ram > 0
    assert find_room(torch.device("cpu")).device is None


def at_unit_power(frames_BTC: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return frames_BTC / np.sqrt(np.mean(np.sum(frames_BTC**2, axis=2), axis=1))[:, None, None]


@pytest.mark.parametrize(("storage", "tolerance"), [("memmap", 0), ("ram", 0), ("ram_float16", 2e-3)])
def test_held_frames_are_those_of_the_file(tmp_path: Path, storage: str, tolerance: float) -> None:
    with RadioMLFile(raw_file(tmp_path / "a.hdf5")) as plain:
        expected = plain.frames(np.array([3, 1, 2]))
    if storage == "ram_float16":
        expected = at_unit_power(expected)
    with RadioMLFile(raw_file(tmp_path / "a.hdf5"), storage=storage) as data:
        fingerprint = data.fingerprint
        assert data.hold(np.array([1, 2, 3])) == storage
        frames = data.frames(np.array([3, 1, 2]))
        assert data.fingerprint == fingerprint
        assert not data.is_on_device
        if storage != "memmap":
            with pytest.raises(ValueError, match="row 0 is not held"):
                data.frames(np.array([1, 0]))
    assert frames.dtype == np.float32
    assert np.abs(frames - expected).max() <= tolerance


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1.0, 3e4, 1e18])
def test_float16_keeps_a_frame_of_any_scale_and_leaves_silent_and_bad_ones_alone(tmp_path: Path, scale: float) -> None:
    frames = np.random.default_rng(0).normal(size=(4, 1024, 2)).astype(np.float32)
    expected = at_unit_power(frames[[0, 3]])
    frames *= np.float32(scale)
    frames[1] = 0
    frames[2, 5, 1] = np.nan
    path = raw_file(tmp_path / "a.hdf5", X=frames)
    with RadioMLFile(path, storage="ram_float16") as data:
        held_on_device = HeldOnDevice(data.frames, np.arange(4), 4, torch.device("cpu"))
        data.hold(np.arange(4))
        for held in (data.frames(np.arange(4)), held_on_device.frames(torch.arange(4)).numpy()):
            np.testing.assert_allclose(held[[0, 3]], expected, atol=2e-3)
            assert not held[1].any()
            assert np.isnan(held[2, 5, 1])


def test_a_chunked_file_is_held_in_memory_by_auto(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "a.hdf5", X=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("X", data=np.ones((4, 1024, 2), np.float32), chunks=(1, 1024, 2), compression="gzip")
    with RadioMLFile(path) as data:
        assert data.hold(np.arange(4)) == "ram"
        assert np.array_equal(data.frames(np.array([2, 1])), np.ones((2, 1024, 2)))


def test_a_long_reading_tells_every_ten_seconds_how_far_it_is() -> None:
    lines = list[str]()
    seconds = iter(range(0, 1000, 4))
    parts = list(told_parts(20_480, lines.append, clock=lambda: float(next(seconds))))
    assert [(part.start, part.stop) for part in parts] == [(start, start + 2048) for start in range(0, 20_480, 2048)]
    assert lines == [
        "reading frames: 4,096 of 20,480 (20%), 48 s left",
        "reading frames: 10,240 of 20,480 (50%), 24 s left",
        "reading frames: 16,384 of 20,480 (80%), 9 s left",
    ]
    list(told_parts(20_480, lines.append, clock=lambda: 0.0))
    assert len(lines) == 3, "a quick reading says nothing"


def test_reading_a_compressed_file_tells_a_trial_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "TELL_EVERY_S", 0.0)
    monkeypatch.setattr(storage_module, "_CHUNK", 2)
    path = raw_file(tmp_path / "a.hdf5", X=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("X", data=np.ones((4, 1024, 2), np.float32), chunks=(1, 1024, 2), compression="gzip")
    lines = list[str]()
    with RadioMLFile(path) as data:
        data.hold(np.arange(4), tell=lines.append)
    assert lines[-1].startswith("reading frames: 2 of 4 (50%)")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with RadioMLFile(raw_file(tmp_path / "a.hdf5"), storage="device") as data:
        with pytest.raises(ConfigError, match="needs an NVIDIA GPU"):
            data.hold(np.arange(4), torch.device("cpu"))
        with pytest.raises(ValueError, match="not on a device"):
            data.positions_on_device(np.arange(4))


def test_frames_held_by_a_device_come_back_in_the_given_order(tmp_path: Path) -> None:
    # The CPU is a device as good as another for what is copied and gathered.
    with RadioMLFile(raw_file(tmp_path / "a.hdf5")) as data:
        held = HeldOnDevice(data.frames, np.array([0, 2, 3]), data.n_frames, torch.device("cpu"))
        frames = held.frames(held.positions(np.array([3, 0])))
        assert (frames.dtype, frames.shape) == (torch.float32, (2, 1024, 2))
        np.testing.assert_allclose(frames.numpy(), at_unit_power(data.frames(np.array([3, 0]))), atol=2e-3)
        with pytest.raises(ValueError, match="row 1 is not held"):
            held.positions(np.array([0, 1]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_holds_frames_and_gives_them_back(tmp_path: Path) -> None:
    with RadioMLFile(raw_file(tmp_path / "a.hdf5"), storage="device") as data:
        assert data.hold(np.array([1, 2, 3]), torch.device("cuda")) == "device"
        frames = data.frames_on_device(data.positions_on_device(np.array([3, 1])))
        assert frames.device.type == "cuda"
        np.testing.assert_allclose(frames.cpu().numpy(), at_unit_power(data.frames(np.array([3, 1]))), atol=2e-3)


def test_a_file_that_is_being_written_is_called_busy(tmp_path: Path) -> None:
    path = tmp_path / "frames.hdf5"
    program = (
        "import h5py, sys\n"
        "with h5py.File(sys.argv[1], 'w') as file:\n    file['X'] = [1]\n    print('open', flush=True)\n"
        "    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(DataError, match="another process has it open for writing"):
            RadioMLFile(path)
