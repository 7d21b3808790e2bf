"""One sheet of pictures per prompt and size: a row per seed, a column per arm."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from .comparison import Comparison, Size
from .store import PREVIEW, Store

GAP = 10
TEXT = 18
LINE = TEXT + GAP
MISSING = (225, 225, 225)


def write_sheets(comparison: Comparison, store: Store, *, show_prompts: bool) -> None:
    """Writes `sheets/WIDTHxHEIGHT-NUMBER.jpg` for every prompt; above the pictures its number, or its text if asked.

    Sheets of a comparison that was asked for before, with other sizes or more prompts, are removed.
    """
    folder = store.folder / "sheets"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*x*-[0-9][0-9][0-9].jpg"):
        old.unlink()
    for size in comparison.asked.sizes:
        for number, prompt in enumerate(comparison.asked.prompts):
            title = f"{number + 1}. {prompt}" if show_prompts else f"prompt {number + 1}, {size}"
            _sheet(comparison, store, size, number, title).save(folder / f"{size}-{number + 1:03}.jpg", quality=90)


def _sheet(comparison: Comparison, store: Store, size: Size, number: int, title: str) -> Image.Image:
    asked = comparison.asked
    cell = _preview_size(size)
    per_seed = asked.batch
    width = GAP + len(asked.arms) * (cell[0] + GAP)
    height = 2 * LINE + GAP + len(asked.seeds) * per_seed * (cell[1] + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    _write(sheet, GAP, GAP // 2, title)
    for question in comparison.questions:
        if (question.size, question.prompt) != (size, number):
            continue
        column, row = asked.arms.index(question.arm), asked.seeds.index(question.seed) * per_seed
        left = GAP + column * (cell[0] + GAP)
        _write(sheet, left, LINE + GAP // 2, question.arm)
        answer = store.answer(question)
        for one in range(per_seed):
            box = (left, 2 * LINE + (row + one) * (cell[1] + GAP))
            if answer and one < len(answer.pictures):
                with Image.open(store.preview(answer.pictures[one])) as picture:
                    sheet.paste(picture, box)
            else:
                draw.rectangle((*box, box[0] + cell[0] - 1, box[1] + cell[1] - 1), MISSING)
                _write(sheet, box[0] + GAP, box[1] + GAP, "missing")
    return sheet


def _write(sheet: Image.Image, left: int, top: int, text: str) -> None:
    """Writes in black. The Pillow of some WebUIs (before 10.1) has only small Latin letters: they are doubled."""
    try:
        scale, font = 1, ImageFont.load_default(TEXT)
    except TypeError:
        scale, font = 2, ImageFont.load_default()
        text = text.encode("latin-1", "replace").decode("latin-1")
    _, _, width, height = map(math.ceil, font.getbbox(text))
    letters = Image.new("L", (width, height))
    ImageDraw.Draw(letters).text((0, 0), text, 255, font)
    sheet.paste("black", (left, top), letters.resize((scale * width, scale * height)))


def _preview_size(size: Size) -> tuple[int, int]:
    scale = min(1, PREVIEW / max(size.width, size.height))
    return max(1, round(size.width * scale)), max(1, round(size.height * scale))
