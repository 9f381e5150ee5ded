"""One frame as a picture: its samples over time, and every channel of every representation.

Pillow comes with torchvision, so no plotting library is needed.

In names: T = 1024 samples, C = I and Q or channels, H = W pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_INK, _PAPER, _RULE = (17, 24, 39), (255, 255, 255), (209, 213, 219)
_IN_PHASE, _QUADRATURE = (30, 64, 175), (217, 119, 6)
_TILE, _GAP, _TITLE, _CAPTION = 256, 24, 60, 40  # pixels
_TRACE_HEIGHT, _PER_ROW = 220, 4


def frame_picture(
    iq_TC: npt.NDArray[np.float32],
    channels: list[tuple[str, npt.NDArray[np.float32]]],
    *,
    title: str,
    subtitle: str = "",
) -> Image.Image:
    """Draw the samples, and below them the channels as (caption, (H, W)), each in its own range of values."""
    n_rows = -(-len(channels) // _PER_ROW)
    width = _GAP + _PER_ROW * (_TILE + _GAP)
    height = _TITLE + _TRACE_HEIGHT + _GAP + n_rows * (_CAPTION + _TILE + _GAP)
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_GAP, 10), title, fill=_INK, font=ImageFont.load_default(18))
    draw.text((_GAP, 36), subtitle, fill=_INK, font=ImageFont.load_default(13))
    _trace(draw, iq_TC, left=_GAP, top=_TITLE, width=width - 2 * _GAP)
    for number, (caption, values_HW) in enumerate(channels):
        row, column = divmod(number, _PER_ROW)
        left = _GAP + column * (_TILE + _GAP)
        top = _TITLE + _TRACE_HEIGHT + _GAP + row * (_CAPTION + _TILE + _GAP)
        finite = values_HW[np.isfinite(values_HW)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        draw.text((left, top), caption, fill=_INK, font=ImageFont.load_default(13))
        draw.text((left, top + 18), f"white {low:.2f}, black {high:.2f}", fill=_INK, font=ImageFont.load_default(11))
        picture.paste(_tile(values_HW, low, high), (left, top + _CAPTION))
        draw.rectangle((left - 1, top + _CAPTION - 1, left + _TILE, top + _CAPTION + _TILE), outline=_RULE)
    return picture


def _trace(draw: ImageDraw.ImageDraw, iq_TC: npt.NDArray[np.float32], *, left: int, top: int, width: int) -> None:
    finite_TC = np.nan_to_num(iq_TC, nan=0.0, posinf=0.0, neginf=0.0)
    reach = max(float(np.abs(finite_TC).max()), 1e-9)
    middle = top + _TRACE_HEIGHT / 2
    draw.rectangle((left, top, left + width, top + _TRACE_HEIGHT), outline=_RULE)
    draw.line((left, middle, left + width, middle), fill=_RULE)
    x_T = left + np.arange(len(iq_TC)) * width / len(iq_TC)
    for component, colour in ((0, _IN_PHASE), (1, _QUADRATURE)):
        y_T = middle - finite_TC[:, component] / reach * (_TRACE_HEIGHT / 2 - 4)
        draw.line(list(zip(x_T.tolist(), y_T.tolist(), strict=True)), fill=colour)
    small = ImageFont.load_default(13)
    legend = top - 24  # beside the subtitle, clear of the samples
    draw.text((left + width - 240, legend), "I", fill=_IN_PHASE, font=small)
    draw.text((left + width - 224, legend), "Q", fill=_QUADRATURE, font=small)
    draw.text((left + width, legend), f"over {len(iq_TC)} samples, ±{reach:.2f}", fill=_INK, font=small, anchor="ra")


def _tile(values_HW: npt.NDArray[np.float32], low: float, high: float) -> Image.Image:
    share_HW = np.nan_to_num((values_HW - low) / ((high - low) or 1.0))
    return Image.fromarray((255 * (1 - share_HW)).astype(np.uint8)).resize((_TILE, _TILE), Image.Resampling.NEAREST)
