"""The pixels of the pictures follow the confusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from amc_core.training.evaluation import Evaluation
from amc_core.training.pictures import confusion_picture, draw_pictures


def perfect(n_classes: int) -> Evaluation:
    joint = np.zeros((n_classes, 3, n_classes, 3), dtype=np.int64)
    for modulation in range(n_classes):
        for level in range(3):
            joint[modulation, level, modulation, level] = 5
    names = ("BPSK", "QPSK", "8PSK", "16PSK")[:n_classes]
    return Evaluation(modulations=names, levels_db=(-20, 0, 30), joint=joint, loss=0.0, loss_mod=0.0, loss_snr=0.0)


def blue(picture: Image.Image) -> int:
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    return int((pixels[..., 2] - pixels[..., 0] > 120).sum())


def test_every_picture_is_written_and_can_be_read(tmp_path: Path) -> None:
    paths = draw_pictures(tmp_path, perfect(4), title="test")
    assert [path.name for path in paths] == ["modulation_confusion.png", "snr_confusion.png", "accuracy_by_snr.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 100
            assert blue(picture) > 100


def test_more_confusion_gives_fewer_dark_pixels() -> None:
    diagonal, half = np.eye(4, dtype=np.int64) * 10, np.full((4, 4), 5)
    names = ["BPSK", "QPSK", "8PSK", "16PSK"]
    assert blue(confusion_picture(diagonal, names, title="x")) > blue(confusion_picture(half, names, title="x")) == 0


def test_one_level_and_a_class_without_frames_are_drawn_too(tmp_path: Path) -> None:
    joint = np.zeros((2, 1, 2, 1), dtype=np.int64)
    joint[0, 0, 0, 0] = 3
    result = Evaluation(
        modulations=("BPSK", "128APSK"), levels_db=(10,), joint=joint, loss=0.0, loss_mod=0.0, loss_snr=0.0
    )
    assert len(draw_pictures(tmp_path, result, title="val")) == 3
