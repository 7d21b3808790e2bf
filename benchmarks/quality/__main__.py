"""Command line of the quality benchmark; benchmarks/README.md explains it."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported; two threads wait more than they work

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # demo_model is a module of its own there

from benchmarks.documents import insert_figures  # noqa: E402

from .cells import (  # noqa: E402
    RESTARTED_AT,
    SHOWN,
    SQUARE_2X,
    SQUARE_4X,
    TRUE_ROW,
    WAYS,
    Cell,
    Store,
    all_cells,
    restarted,
)
from .classifier import load_classifier  # noqa: E402
from .detail import load_detail_net  # noqa: E402
from .measures import Measures  # noqa: E402
from .running import fill_cells  # noqa: E402

if TYPE_CHECKING:
    from .demo_sampler import DemoSampler

RESULTS = ROOT / "benchmarks" / "results"
COMMAND = "python -m benchmarks.quality"
DOCUMENT = ROOT / "docs" / "quality.md"
"""Gets the short table; the long ones stand in a document beside the rows."""

WAYS_SHEETS = ROOT / "docs" / "ways"

SYMPTOMS = ROOT / "docs" / "symptoms"
"""Pictures that show what goes wrong, and the same ones as they are with what helps."""


def main() -> None:
    """Parses the arguments and runs one command."""
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    cells = [cell for cell in all_cells() if any(fnmatch(cell.name, pattern) for pattern in arguments.cells)]
    if arguments.command == "list":
        print("\n".join(cell.name for cell in cells))
    elif arguments.command == "prepare":
        from tools.train_demo_model.data import load_glyphs

        from .preparing import prepare

        prepare(load_glyphs(), RESULTS)
    else:
        _run(arguments, cells)


def _run(arguments: argparse.Namespace, cells: list[Cell]) -> None:
    """Samples what is missing, then measures and reports everything that is there; or puts it side by side."""
    from .demo_sampler import DemoSampler

    sampler = DemoSampler(arguments.steps, arguments.guidance, arguments.precision == "bf16", arguments.model)
    store = Store(sampler.folder(arguments.out))
    if arguments.command == "blind":
        _blind(store, cells, list(sampler.captions))
        return
    if arguments.command == "ways":
        _ways(store, list(sampler.captions))
        return
    if arguments.command == "run" and not fill_cells(sampler, store, cells, arguments.images, arguments.minutes):
        print("The time is up; the same command goes on from here.")
    _report(arguments.images, sampler, store)


def _blind(store: Store, cells: list[Cell], captions: list[str]) -> None:
    from .report import blind_sheet

    there = sorted((cell for cell in cells if store.complete(cell)), key=lambda cell: (cell.height, cell.width))
    for (height, width), group in groupby(there, lambda cell: (cell.height, cell.width)):
        sheet = store.folder / f"blind-{height}x{width}.png"
        print(f"{sheet}; which row is what: {blind_sheet(store, list(group), captions, sheet).name}")


def _ways(store: Store, captions: list[str]) -> None:
    from .report import pairs_sheet, ways_sheet

    for name, size in {"2x": SQUARE_2X, "4x": SQUARE_4X}.items():
        path = WAYS_SHEETS / f"{name}.jpg"
        cells = (Cell(method, *size) for method in WAYS)
        ways_sheet(store, [cell for cell in cells if store.complete(cell)], captions, path)
        print(path)
    for name, symptom in SHOWN.items():
        path = SYMPTOMS / f"{name}.jpg"
        pairs_sheet(store, *symptom, path)
        print(path)


def _report(most: int, sampler: DemoSampler, store: Store) -> None:
    """Measures what is on disk and writes it with the rows that earlier runs of the same setting left."""
    from . import report
    from .preparing import load_native_counts

    captions = list(sampler.captions)
    nets = load_classifier(), load_detail_net()
    measures = Measures(store, *nets, captions, load_native_counts(), sampler.precision)
    figures = RESULTS / "quality.json"
    earlier = report.read_rows(sampler.setting, figures)
    rows = report.merged(earlier, measures.rows(all_cells(), most), all_cells())
    if not rows:
        print("Too few pictures yet for any figure.")
        return
    drawn = [row for row in rows if row.method not in map(restarted, RESTARTED_AT)]
    of_truth = [row for row in rows if row.method.startswith(TRUE_ROW)]
    tables = [report.table(drawn), "True pictures, as they are, through the autoencoder, and restarted by the model:"]
    tables.append(report.truth_table(of_truth))
    print(*tables, sep="\n\n")
    if not sampler.is_the_demo_model:
        return
    report.write_rows(rows, sampler.setting, figures)
    report.plot(drawn, RESULTS / "quality.png")
    settings = (
        f"Made by `{COMMAND} --steps {sampler.steps} --guidance {sampler.guidance:g}`, demo model "
        f"`{sampler.setting.partition('-')[0]}`; seeds 1000 + number of the picture, of the native reference 500000 + "
        "number; n is stated per row."
    )
    metrics = report.metrics_text(json.loads((RESULTS / "metrics.json").read_text(encoding="utf-8")))
    long = [settings, *tables, "![The table as bars](quality.png)", metrics]
    insert_figures(RESULTS / "quality.md", "\n\n".join(long), COMMAND)
    insert_figures(DOCUMENT, "\n\n".join([report.summary(drawn), *tables[1:]]), COMMAND)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        default="run",
        choices=["run", "report", "blind", "ways", "list", "prepare"],
        help="run: sample what is missing and report (default); report: report only; blind: put the pictures side by "
        "side without saying what they are; ways: write the sheets of docs/ways.md and the README; list: show the "
        "cells; prepare: train the classifier, count native objects, test the counter",
    )
    parser.add_argument(
        "--cells", nargs="+", default=["*"], metavar="PATTERN", help="only these cells, such as '*-256x256'"
    )
    parser.add_argument("--images", type=int, default=200, help="pictures per cell (default 200)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop sampling after this time")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument(
        "--model",
        type=Path,
        default=ROOT / "demo",
        help="folder of an exported model; of another than the demo model the figures are only printed",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "quality", help="folder that keeps the pictures")
    return parser


if __name__ == "__main__":
    main()
