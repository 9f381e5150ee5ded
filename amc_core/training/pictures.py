"""Both confusion matrices and accuracy by SNR, as PNG files.

Pillow comes with torchvision and draws the three pictures in 0.1 s, so no plotting library is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from amc_core.files import whole_file
from amc_core.training.evaluation import Counts, Evaluation

_CELL = 44  # pixels
_INK, _PAPER, _RULE = (17, 24, 39), (255, 255, 255), (209, 213, 219)
_FULL = (30, 64, 175)  # colour of a share of 1
_LINES = {"combined": (30, 64, 175), "modulation": (217, 119, 6), "SNR": (5, 150, 105)}


def draw_pictures(folder: Path, evaluation: Evaluation, *, title: str) -> list[Path]:
    """Write modulation_confusion.png, snr_confusion.png and accuracy_by_snr.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = [f"{level}" for level in evaluation.levels_db]
    pictures = {
        "modulation_confusion": confusion_picture(
            evaluation.modulation,
            evaluation.modulations,
            title=f"modulation, {title}: {evaluation.mod_acc:.2%} right",
        ),
        "snr_confusion": confusion_picture(
            evaluation.snr, levels, title=f"SNR in dB, {title}: {evaluation.snr_acc:.2%} right"
        ),
        "accuracy_by_snr": accuracy_picture(evaluation, title=f"accuracy by SNR, {title}"),
    }
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / f"{name}.png")
        with whole_file(paths[-1]) as partial:
            picture.save(partial, format="PNG")
    return paths


def confusion_picture(confusion_KK: Counts, names: Sequence[str], *, title: str) -> Image.Image:
    """Draw a row per true class and a column per guessed one: shares of the row in %, darker for larger shares."""
    share_KK = confusion_KK / np.maximum(confusion_KK.sum(axis=1, keepdims=True), 1)
    font, small = _font(15), _font(13)
    margin = 24 + max(int(font.getlength(name)) for name in names)
    side = _CELL * len(names)
    picture, draw = _canvas(margin + side + 24, 40 + side + margin)
    draw.text((margin, 10), title, fill=_INK, font=font)
    for row, name in enumerate(names):
        top = 40 + row * _CELL
        draw.text((margin - 8, top + _CELL // 2), name, fill=_INK, font=font, anchor="rm")
        for column, share in enumerate(share_KK[row].tolist()):
            left = margin + column * _CELL
            draw.rectangle((left, top, left + _CELL - 1, top + _CELL - 1), fill=_shade(share), outline=_RULE)
            if share >= 0.005:
                colour = _PAPER if share > 0.5 else _INK
                draw.text((left + _CELL // 2, top + _CELL // 2), f"{share:.0%}", fill=colour, font=small, anchor="mm")
    for column, name in enumerate(names):  # turned by 90 degrees, so that long names fit
        label = Image.new("RGB", (margin - 8, 20), _PAPER)
        ImageDraw.Draw(label).text((margin - 8, 10), name, fill=_INK, font=font, anchor="rm")
        picture.paste(label.rotate(90, expand=True), (margin + column * _CELL + _CELL // 2 - 10, 44 + side))
    return picture


def accuracy_picture(evaluation: Evaluation, *, title: str) -> Image.Image:
    """Draw combined, modulation and SNR accuracy over the true SNR."""
    font = _font(15)
    left, top, width, height = 64, 70, 760, 400
    picture, draw = _canvas(left + width + 40, top + height + 60)
    draw.text((left, 10), title, fill=_INK, font=font)
    lowest, highest = evaluation.levels_db[0], evaluation.levels_db[-1]

    def place(snr_db: float, share: float) -> tuple[float, float]:
        part = (snr_db - lowest) / (highest - lowest) if highest > lowest else 0.5
        return left + part * width, top + (1 - share) * height

    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = place(lowest, share)[1]
        draw.line((left, y, left + width, y), fill=_RULE)
        draw.text((left - 8, y), f"{share:.0%}", fill=_INK, font=font, anchor="rm")
    for snr_db in evaluation.levels_db:
        draw.text((place(snr_db, 0)[0], top + height + 8), str(snr_db), fill=_INK, font=font, anchor="mt")
    draw.text((left + width / 2, top + height + 34), "true SNR, dB", fill=_INK, font=font, anchor="mt")

    series = {
        "combined": evaluation.combined_acc_by_snr.tolist(),
        "modulation": evaluation.mod_acc_by_snr.tolist(),
        "SNR": [score.recall for score in evaluation.snr_scores],
    }
    for number, (name, values) in enumerate(series.items()):
        levels = zip(evaluation.levels_db, values, evaluation.snr_scores, strict=True)
        points = [place(db, value) for db, value, score in levels if score.n_frames]
        draw.line(points, fill=_LINES[name], width=3)
        for x, y in points:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_LINES[name])
        draw.text((left + number * 150, 40), name, fill=_LINES[name], font=font)
    return picture


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (width, height), _PAPER)
    return picture, ImageDraw.Draw(picture)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):  # the fallback of a Pillow without FreeType
        raise TypeError("Pillow was built without FreeType; install Pillow's wheel")
    return font


def _shade(share: float) -> tuple[int, int, int]:
    red, green, blue = (round(paper + (full - paper) * share) for paper, full in zip(_PAPER, _FULL, strict=True))
    return red, green, blue
