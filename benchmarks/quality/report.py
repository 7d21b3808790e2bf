"""Writes the figures for people: tables, a plot and sheets of pictures, and the rows as json."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from .cells import (
    SQUARE_2X,
    SQUARE_3X,
    SQUARE_4X,
    TRUE_DECODED_ROW,
    WAYS,
    Cell,
    Store,
    prompt_number,
)
from .measures import Row, floor_of

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend comes first

COLUMNS = 8
PLOT_COLOURS = 32
"""Enough for bars and letters, in a fraction of the bytes."""

WAYS_SIDE, WAYS_LABEL_WIDTH = 160, 130
BLIND_COLUMNS, NUMBER_WIDTH = 6, 30
PAIRS_SIDE = 112
HEADINGS = [
    "size (HxW)",
    "method",
    "n",
    "objects",
    "extra objects",
    "FID_b",
    "KID_b",
    "detail",
    "accuracy",
    "work",
    "seam",
    "uneven",
]
SUMMARISED = [SQUARE_2X, SQUARE_3X, SQUARE_4X]
"""The sizes of the short table."""

PANELS = [
    ("extra_object_rate", "extra objects (share of pictures)"),
    ("kid_b", "KID_b"),
    ("detail", "detail"),
    ("accuracy", "accuracy"),
]


def write_rows(rows: Sequence[Row], setting: str, path: Path) -> None:
    """The rows as json, with the setting they share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {"setting": setting, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def read_rows(setting: str, path: Path) -> list[Row]:
    """The rows of an earlier run with the same setting; none if there are none or it was another."""
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return [Row(**row) for row in figures["rows"]] if figures.get("setting") == setting else []


def merged(earlier: Sequence[Row], new: Sequence[Row], cells: Sequence[Cell]) -> list[Row]:
    """One row per cell, in the cells' order: the one of more pictures, of equally many the new one."""
    best: dict[Cell, Row] = {}
    for row in chain(earlier, new):
        cell = Cell(row.method, row.height, row.width)
        if cell not in best or row.n >= best[cell].n:
            best[cell] = row
    return [best[cell] for cell in cells if cell in best]


def table(rows: Sequence[Row]) -> str:
    """The rows as a markdown table; rates with their standard error."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for row in rows:
        cells = [
            f"{row.height}x{row.width}",
            row.method,
            row.n,
            f"{row.objects_mean:.2f}",
            _rate(row.extra_object_rate, row.n),
            f"{row.fid_b:.2f}",
            f"{row.kid_b:.3f}",
            f"{row.detail:.2f} ± {row.detail_error:.2f}",
            _rate(row.accuracy, row.n),
            f"{row.work:.1f}",
            *map(_optional, (row.seam, row.unevenness)),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """A short markdown table: how often each way repeats objects, how often what it draws is named as it was asked for,
    and its detail; dashes where no row is.
    """
    found = {(row.method, (row.height, row.width)): row for row in rows}
    sizes = [f"{height}x{width}: extra objects | named rightly | detail" for height, width in SUMMARISED]
    lines = ["| way | " + " | ".join(sizes) + " |", "|---" * (1 + 3 * len(SUMMARISED)) + "|"]
    for method in (*WAYS, TRUE_DECODED_ROW):
        there = [found.get((method, size)) for size in SUMMARISED]
        figures = [(row.extra_object_rate, row.accuracy, row.detail) if row else None for row in there]
        cells = ["{:.1%} | {:.1%} | {:.2f}".format(*each) if each else "– | – | –" for each in figures]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def truth_table(rows: Sequence[Row]) -> str:
    """What is left of true pictures, as a markdown table: of them as they are, decoded, and restarted."""
    lines = ["| size (HxW) | pictures | n | dB | false texture | moved | uneven |", "|" + "---|" * 7]
    for row in rows:
        fidelity, moved, uneven = (_optional(value) for value in (row.fidelity, row.moved, row.unevenness))
        cells = [f"{row.height}x{row.width}", row.method, row.n, fidelity, f"{row.false_texture:.1%}", moved, uneven]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars per cell, one panel per figure, the native floor as a line."""
    shown = [row for row in rows if row is not floor_of(rows)]
    native = floor_of(rows)
    figure, axes = plt.subplots(1, len(PANELS), figsize=(16, 1.2 + 0.3 * len(shown)), sharey=True, squeeze=False)
    sizes = sorted({(row.height, row.width) for row in shown})
    for panel, (key, title) in zip(axes[0], PANELS, strict=True):
        values = [getattr(row, key) for row in shown]
        colours = [f"C{sizes.index((row.height, row.width))}" for row in shown]
        panel.barh(range(len(shown)), values, color=colours)
        panel.set_yticks(range(len(shown)), [f"{row.method}  {row.height}x{row.width} (n={row.n})" for row in shown])
        panel.set_title(title)
        if native:
            panel.axvline(getattr(native, key), color="black", linestyle="--", linewidth=1)
    axes[0][0].invert_yaxis()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(PLOT_COLOURS)
    few.save(path, optimize=True)


def ways_sheet(store: Store, cells: Sequence[Cell], captions: Sequence[str], path: Path) -> None:
    """The first 24 pictures of each cell in three bands, for the page that puts the ways side by side."""
    rows = [(cell.method, cell) for cell in cells]
    _save_sheet(store, rows, captions, path, columns=COLUMNS, side=WAYS_SIDE, label_width=WAYS_LABEL_WIDTH, bands=3)


def pairs_sheet(store: Store, before: Cell, after: Cell, numbers: Sequence[int], path: Path) -> None:
    """Some pictures of two cells, each beside its counterpart: what one sees, and what one would rather see."""
    shown = [store.read(cell, number) for number in numbers for cell in (before, after)]
    sheet = Image.new("RGB", (len(shown) * (PAIRS_SIDE + 4), PAIRS_SIDE), "white")
    for place, picture in enumerate(shown):
        small = Image.fromarray(picture).resize((PAIRS_SIDE, PAIRS_SIDE), Image.Resampling.LANCZOS)
        sheet.paste(small, (place * (PAIRS_SIDE + 4) + 4 * (place % 2 == 0), 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=85, optimize=True, progressive=True)


def blind_sheet(store: Store, cells: Sequence[Cell], captions: Sequence[str], path: Path) -> Path:
    """The same at full size, the rows numbered and in an order that nobody knows: for eyes that shall not be led.

    Returns:
        The file beside the sheet that says which row is what.
    """
    rows = [(str(number), cell) for number, cell in enumerate(random.sample(cells, len(cells)), 1)]
    side = max(max(cell.height, cell.width) for cell in cells)
    _save_sheet(store, rows, captions, path, columns=BLIND_COLUMNS, side=side, label_width=NUMBER_WIDTH)
    key = path.with_suffix(".key.txt")
    key.write_text("".join(f"{number}: {cell.name}\n" for number, cell in rows), encoding="utf-8")
    return key


def _save_sheet(
    store: Store,
    rows: Sequence[tuple[str, Cell]],
    captions: Sequence[str],
    path: Path,
    *,
    columns: int,
    side: int,
    label_width: int,
    bands: int = 1,
) -> None:
    """Labelled rows of as many columns as every cell has, again for the next columns in each band below.

    `side` is the longer one of a picture.
    """
    font = ImageFont.load_default(14)
    columns = min([columns, *(store.complete(cell) // bands for _, cell in rows)])
    heights = [round(side * cell.height / max(cell.height, cell.width)) for _, cell in rows]
    band_height = 22 + sum(heights) + 4 * len(rows)
    sheet = Image.new("RGB", (label_width + columns * (side + 4), bands * band_height), "white")
    draw = ImageDraw.Draw(sheet)
    for band in range(bands):
        first, top = band * columns, band * band_height
        for index in range(columns):
            caption = captions[prompt_number(first + index, len(captions))]
            draw.text((label_width + index * (side + 4), top + 3), caption[:20], "black", font)
        top += 22
        for (label, cell), height in zip(rows, heights, strict=True):
            draw.text((4, top + height // 2 - 8), label, "black", font)
            for index in range(columns):
                picture = Image.fromarray(store.read(cell, first + index))
                width = round(height * cell.width / cell.height)
                picture = picture.resize((width, height), Image.Resampling.LANCZOS)
                sheet.paste(picture, (label_width + index * (side + 4), top))
            top += height + 4
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=78, optimize=True, progressive=True)


def metrics_text(metrics: dict[str, Any]) -> str:
    """How good the measuring is, in markdown: the counter's confusion, the classifier, figures of real pictures."""
    lines = [
        "Counter, on real emoji drawn 1, 2 or 4 times, slightly blurred and noisy, the boxes around them apart:",
        "",
        "| objects drawn | picture side | apart by | n | counted | wrong |",
        "|---|---|---|---|---|---|",
    ]
    for case in metrics["counter"]:
        counted = ", ".join(f"{count} in {times}" for count, times in case["counted"].items())
        drawn = f"{case['objects']} | {case['side']} | {case['gap']:.0%} | {case['n']}"
        lines.append(f"| {drawn} | {counted} | {case['error_rate']:.1%} |")
    lines += ["", *_detail_lines(metrics["detail"])]
    classifier = metrics["classifier"]
    lines += [
        "",
        f"The classifier ({classifier['parameters']:,} parameters) names {classifier['held_out_accuracy']:.1%} of "
        f"held-out clean renderings and {classifier['held_out_accuracy_worn']:.1%} of worn ones. What the figures are "
        "for real pictures at 256x256 against real ones at 128x128 with one object:",
        "",
        "| objects drawn | n | FID_b | KID_b | accuracy |",
        "|---|---|---|---|---|",
    ]
    for row in metrics["calibration"]:
        figures = f"{row['fid_b']:.2f} | {row['kid_b']:.3f} | {row['accuracy']:.1%}"
        lines.append(f"| {row['objects']} | {row['n']} | {figures} |")
    return "\n".join(lines)


def _detail_lines(detail: dict[str, Any]) -> list[str]:
    right = detail["held_out"]
    lines = [
        f"The network that looks at detail ({detail['parameters']:,} parameters) names {right['captions']:.1%} of "
        f"held-out close-ups, tells for {right['nearness']:.1%} of them to within a third how near they are, and for "
        f"{right['falseness']:.1%} of true and false ones whether the texture is false. What *detail* is for true "
        "renderings at 256x256, as they are and spoiled:",
        "",
        "| pictures | n | detail | KID of the same |",
        "|---|---|---|---|",
    ]
    for row in detail["calibration"]:
        figures = f"{row['detail']:.2f} ± {row['detail_error']:.2f} | {row['kid_detail']:.3f}"
        lines.append(f"| {row['pictures']} | {row['n']} | {figures} |")
    return lines


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _rate(value: float, n: int) -> str:
    return f"{value:.1%} ± {(value * (1 - value) / n) ** 0.5:.1%}"
