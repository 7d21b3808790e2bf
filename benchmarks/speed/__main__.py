"""Command line of the speed benchmark; benchmarks/README.md explains it."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from benchmarks.documents import insert_figures  # noqa: E402

from .calls import Setting  # noqa: E402
from .overhead import overhead  # noqa: E402
from .profiling import profile_in_turns, profile_table  # noqa: E402
from .report import plot, rows, summary, table, update_file, work, work_table  # noqa: E402
from .subjects import AUTOENCODER, BASELINE, MODELS, VANILLA, Subject  # noqa: E402
from .timing import time_in_turns, time_once  # noqa: E402
from .window_attention import window_attention  # noqa: E402

COMMAND = "python -m benchmarks.speed"
DOCUMENT = ROOT / "docs" / "performance.md"
"""Gets the short tables; the long ones stand in a document beside the rows."""

RESULTS = ROOT / "benchmarks" / "results"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    """Measures every combination of the arguments and writes what was found after each."""
    arguments = _parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    counted = arguments.device == "meta"
    for model in arguments.models:
        for height, width in arguments.sizes:
            for batch in arguments.batches:
                dtype = DTYPES[arguments.dtype]
                setting = Setting(model, height, width, batch, dtype, arguments.device, arguments.steps)
                (_count if counted else _measure)(setting, arguments)
    if not counted:
        _overhead(arguments.models, dry_run=arguments.dry_run)


def _count(setting: Setting, arguments: argparse.Namespace) -> None:
    """What is left to compute of whole jobs, without computing it."""
    path = RESULTS / "work.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found |= work(setting, list(Subject(setting).methods()))
    print(work_table(found), flush=True)
    if not arguments.dry_run:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        insert_figures(DOCUMENT, work_table(found), f"{COMMAND} --device meta")


def _measure(setting: Setting, arguments: argparse.Namespace) -> None:
    print(f"\n{setting}", flush=True)
    subject = Subject(setting)
    there = list(subject.methods())
    wanted = {method.name for method in there if any(fnmatch(method.name, pattern) for pattern in arguments.methods)}
    wanted |= {VANILLA, AUTOENCODER, *(BASELINE.get(name, VANILLA) for name in wanted)}
    methods = [method for method in there if method.name in wanted]
    if arguments.repeats:
        measured = rows(setting, time_in_turns(methods, arguments.repeats, setting.device))
    else:
        measured = rows(setting, time_once(methods, setting.device))
    print(table(measured), flush=True)
    if not arguments.dry_run:
        everything = update_file(RESULTS / "speed.json", measured)
        plot(everything, RESULTS / "speed.png")
        insert_figures(RESULTS / "speed.md", table(everything), COMMAND)
        insert_figures(DOCUMENT, summary(everything), COMMAND)
    if arguments.profile:
        print(profile_table(profile_in_turns(methods, arguments.repeats, setting.device)), flush=True)
    del subject, methods
    gc.collect()


def _overhead(models: Sequence[str], *, dry_run: bool) -> None:
    figures = {model: overhead(MODELS[model]) | window_attention(MODELS[model]) for model in models}
    for model, times in figures.items():
        print(f"{model}, microseconds: " + ", ".join(f"{name} {value:.0f}" for name, value in times.items()))
    if not dry_run:
        path = RESULTS / "overhead.json"
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        rounded = {model: {name: round(value) for name, value in times.items()} for model, times in figures.items()}
        path.write_text(json.dumps({**old, **rounded}, indent=1) + "\n", encoding="utf-8")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(height or width), int(width)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["sd15"])
    parser.add_argument("--sizes", nargs="+", type=_size, default=[(1024, 1024)], metavar="WIDTHxHEIGHT")
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda", "mps", "meta"], default="cpu")
    parser.add_argument("--steps", type=int, default=50, help="of the pass that is put together from the phases")
    parser.add_argument("--repeats", type=int, default=3, help="how often each call is timed; 0: once, unwarmed")
    parser.add_argument("--methods", nargs="+", default=["*"], help="patterns; what they are compared with always runs")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, by kind of operation, too")
    parser.add_argument("--dry-run", action="store_true", help="only print")
    return parser


if __name__ == "__main__":
    main()
