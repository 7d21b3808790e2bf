"""Pictures in labelled rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

GAP = 8
TEXT = 18


def save_grid(path: Path, rows: Mapping[str, torch.Tensor], columns: Sequence[str]) -> None:
    """Writes one row of pictures [B, 3, H, W] (0 to 1) per label, and the columns' labels above."""
    height, width = next(iter(rows.values())).shape[-2:]
    font = ImageFont.load_default(TEXT)
    line = TEXT + 2 * GAP
    sheet = Image.new("RGB", (len(columns) * (width + GAP) + GAP, line + len(rows) * (height + line)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(columns):
        draw.text((GAP + column * (width + GAP), GAP), label, "black", font)
    for row, (label, pictures) in enumerate(rows.items()):
        top = line + row * (height + line)
        for column, picture in enumerate(pictures):
            image = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
            sheet.paste(image, (GAP + column * (width + GAP), top))
        draw.text((GAP, top + height + GAP // 2), label, "black", font)
    sheet.save(path)
