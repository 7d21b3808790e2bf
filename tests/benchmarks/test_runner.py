"""Cells are filled once, go on where they stopped, can be extended, and become rows; on a model that only pretends."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.documents import END, insert_figures, start
from benchmarks.quality.cells import (
    REFERENCE_ROW,
    TRUE_DECODED_ROW,
    Cell,
    Store,
    all_cells,
    prompt_number,
    restarted,
)
from benchmarks.quality.classifier import FEATURES, Classifier, load_classifier, look
from benchmarks.quality.detail import DetailNet
from benchmarks.quality.measures import Measures, Row
from benchmarks.quality.preparing import load_native_counts
from benchmarks.quality.report import (
    blind_sheet,
    merged,
    pairs_sheet,
    plot,
    read_rows,
    summary,
    table,
    truth_table,
    ways_sheet,
    write_rows,
)
from benchmarks.quality.running import fill_cells

ROOT = Path(__file__).resolve().parents[2]
DIRECT, REFERENCE = Cell("direct", 256, 128), Cell(REFERENCE_ROW, 128, 128)


class Pretender:
    """Draws a disc of the seed's own colour, and counts what it was asked for."""

    captions = ("star", "red heart", "droplet")

    def __init__(self, fail_at: int = 10**9) -> None:
        self.asked: list[tuple[str, int]] = []
        self.cells: list[Cell] = []
        self.counted: list[Cell] = []
        self.fail_at = fail_at

    def sample(self, cell: Cell, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        size = cell.height, cell.width
        self.cells.append(cell)
        if len(self.asked) >= self.fail_at:
            raise KeyboardInterrupt
        self.asked += zip(prompts, seeds)
        y, x = np.mgrid[: size[0], : size[1]]
        disc = (y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < (min(size) / 3) ** 2
        pictures = np.full((len(seeds), *size, 3), 200, dtype=np.uint8)
        for picture, seed in zip(pictures, seeds):
            picture[disc] = np.random.default_rng(seed).integers(0, 120, 3)
        return pictures

    def operations(self, cell: Cell) -> int:
        self.counted.append(cell)
        return cell.height * cell.width


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "pictures")


def test_a_filled_cell_is_not_sampled_again_and_can_be_extended(store: Store) -> None:
    first, second, third = Pretender(), Pretender(), Pretender()
    assert fill_cells(first, store, [DIRECT], 10, minutes=math.inf)
    assert fill_cells(second, store, [DIRECT], 10, minutes=math.inf)
    assert fill_cells(third, store, [DIRECT], 13, minutes=math.inf)
    assert [seed for _, seed in first.asked] == list(range(1000, 1010))
    assert second.asked == []
    assert [seed for _, seed in third.asked] == [1010, 1011, 1012]
    assert store.complete(DIRECT) == 13
    assert (first.counted, second.counted, third.counted) == ([DIRECT], [], [])
    assert store.operations(DIRECT) == 256 * 128


def test_an_interrupted_run_goes_on(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_cells(Pretender(fail_at=16), store, [DIRECT], 30, minutes=math.inf)
    kept = store.complete(DIRECT)
    assert 0 < kept < 30
    rest = Pretender()
    assert fill_cells(rest, store, [DIRECT], 30, minutes=math.inf)
    assert len(rest.asked) == 30 - kept
    assert set(rest.cells) == {DIRECT}


def test_without_time_nothing_is_sampled(store: Store) -> None:
    assert not fill_cells(Pretender(), store, [DIRECT], 5, minutes=0)
    assert store.complete(DIRECT) == 0


def test_pictures_come_back_as_written(store: Store) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    store.write(DIRECT, 0, picture)
    assert np.array_equal(store.read(DIRECT, 0), picture)


def test_prompts_are_all_used_before_any_comes_again_and_cells_have_names_of_their_own() -> None:
    assert sorted(prompt_number(index, 150) for index in range(150)) == list(range(150))
    assert [prompt_number(index, 150) for index in range(3)] == [prompt_number(150 + index, 150) for index in range(3)]
    names = [cell.name for cell in all_cells()]
    assert len(set(names)) == len(names)
    assert "hidiffusion-t1-0.2-256x256" in names


def test_cells_become_rows_a_table_a_plot_and_sheets(store: Store, tmp_path: Path) -> None:
    model = Pretender()
    native = Cell("native", 128, 128)
    fill_cells(model, store, [REFERENCE, native, DIRECT], 24, minutes=math.inf)
    torch.manual_seed(0)
    measures = Measures(
        store, Classifier(3).eval(), DetailNet(3).eval(), model.captions, dict.fromkeys(model.captions, 1), "fp32"
    )
    rows = measures.rows([REFERENCE, native, DIRECT, Cell("not sampled", 256, 256)], most=24)
    assert [(row.method, row.n, row.objects_mean, row.extra_object_rate) for row in rows] == [
        ("native", 24, 1.0, 0.0),
        ("direct", 24, 1.0, 0.0),
    ]
    assert rows[1].fid_b > rows[0].fid_b
    assert [row.work for row in rows] == [1, 2]
    write_rows(rows, "a model", tmp_path / "rows.json")
    assert read_rows("a model", tmp_path / "rows.json") == rows
    assert read_rows("another", tmp_path / "rows.json") == read_rows("a model", tmp_path / "none.json") == []
    plot(rows, tmp_path / "plot.png")
    pairs_sheet(store, native, DIRECT, (0, 5), tmp_path / "pairs.jpg")
    with Image.open(tmp_path / "pairs.jpg") as pairs:
        assert pairs.width == 4 * pairs.height + 16
    document = tmp_path / "document.md"
    document.write_text(f"Before\n{start('a command')}\nold\n{END}\nAfter\n", encoding="utf-8")
    insert_figures(document, table(rows), "a command")
    text = document.read_text(encoding="utf-8")
    assert "| 256x128 | direct | 24 | 1.00 |" in text
    assert "old" not in text
    assert text.startswith("Before\n")
    assert text.endswith("After\n")


def test_what_is_kept_of_true_pictures_is_told_beside_the_autoencoders(store: Store) -> None:
    """Pictures that differ by 10 of 255 everywhere have 28.13 dB."""
    decoded, again = (Cell(method, 128, 128) for method in (TRUE_DECODED_ROW, restarted(0.38)))
    reference = Cell(REFERENCE_ROW, 128, 128)
    for index in range(24):
        store.write(reference, index, np.full((128, 128, 3), 90, dtype=np.uint8))
        store.write(decoded, index, np.full((128, 128, 3), 100, dtype=np.uint8))
        store.write(again, index, np.full((128, 128, 3), 110, dtype=np.uint8))
    for cell in (reference, decoded, again):
        store.write_operations(cell, 1)
    captions = ("star", "red heart", "droplet")
    torch.manual_seed(0)
    nets = Classifier(3).eval(), DetailNet(3).eval()
    rows = Measures(store, *nets, captions, dict.fromkeys(captions, 1), "fp32").rows([decoded, again], most=24)
    assert [row.fidelity for row in rows] == [None, 28.131]
    assert rows[0].moved is None
    assert rows[1].moved is not None
    assert rows[1].moved > 0
    assert f"| 128x128 | {again.method} | 24 | 28.13 |" in truth_table(rows)


def test_rows_of_other_runs_stay_and_the_ones_of_more_pictures_win(store: Store) -> None:
    cells = [DIRECT, Cell("hires", 256, 128), Cell("Relay", 256, 128), Cell("never", 256, 128)]

    def row(cell: Cell, n: int, work: float) -> Row:
        figures = dict.fromkeys(["objects_mean", "extra_object_rate", "fid_b", "kid_b", "detail", "detail_error"], 0.0)
        figures |= {"kid_detail": 0.0, "accuracy": 1.0, "work": work, "false_texture": 0.0}
        return Row(cell.method, cell.height, cell.width, n, precision="bf16", seam=None, unevenness=None, **figures)

    earlier = [row(cells[2], 200, 1), row(cells[0], 200, 2), row(Cell("gone", 256, 128), 200, 3)]
    new = [row(cells[0], 200, 4), row(cells[1], 20, 5), row(cells[2], 100, 6)]
    assert [each.work for each in merged(earlier, new, cells)] == [4, 5, 1]


def test_a_document_without_a_place_for_figures_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="no place"):
        insert_figures(document, "figures", "a command")


def test_the_documents_have_the_figures_of_the_rows() -> None:
    figures = json.loads((ROOT / "benchmarks/results/quality.json").read_text(encoding="utf-8"))
    rows = cast("Any", [SimpleNamespace(**row) for row in figures["rows"] if "restarted" not in row["method"]])
    assert table(rows) in (ROOT / "benchmarks/results/quality.md").read_text(encoding="utf-8")
    short = (ROOT / "docs/quality.md").read_text(encoding="utf-8")
    assert summary(rows) in short
    assert figures["setting"].partition("-")[0] in short


def test_the_kept_classifier_and_counts_fit_together() -> None:
    counts = load_native_counts()
    picture = np.full((256, 128, 3), 90, dtype=np.uint8)
    features, found = look(load_classifier(), [picture])
    assert features.shape == (1, FEATURES)
    assert 0 <= found[0] < len(counts)
    assert set(counts.values()) <= {1, 2}


def test_a_blind_sheet_says_what_its_rows_are_only_beside_it(store: Store, tmp_path: Path) -> None:
    colours = {Cell(f"method {number}", 64, 64): 40 * number for number in range(6)}
    for cell, colour in colours.items():
        store.write(cell, 0, np.full((64, 64, 3), colour, dtype=np.uint8))
    key = blind_sheet(store, list(colours), ["star"], tmp_path / "blind.png")
    rows = [line.partition(": ") for line in key.read_text().splitlines()]
    assert [number for number, _, _ in rows] == ["1", "2", "3", "4", "5", "6"]
    sheet = np.asarray(Image.open(tmp_path / "blind.png"))
    shown = [int(sheet[22 + row * 68 + 5, -10, 0]) for row in range(6)]
    assert {name: colour for (_, _, name), colour in zip(rows, shown)} == {
        cell.name: colour for cell, colour in colours.items()
    }


def test_a_sheet_of_ways_goes_on_in_the_next_band(store: Store, tmp_path: Path) -> None:
    cell = Cell("direct", 64, 64)
    for index in range(24):
        store.write(cell, index, np.full((64, 64, 3), 10 * index, dtype=np.uint8))
    ways_sheet(store, [cell], ["star"], tmp_path / "ways.png")
    sheet = np.asarray(Image.open(tmp_path / "ways.png"))
    band = sheet.shape[0] // 3
    shown = [sheet[row * band + band // 2, 130 + column * 164 + 80, 0] for row in range(3) for column in range(8)]
    assert shown == [10 * index for index in range(24)]
