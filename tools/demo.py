"""Draws emoji larger than the demo model was trained for, directly, with HiDiffusion and with Relay: on one sheet."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from demo_model import NATIVE, SITUATION, DemoModel, evenly_spaced, untouched
from hidiffusion_ext.core import Method, OptionError, Options, Plan, Schedule, make_plan
from hidiffusion_ext.core.sizes import CELL
from hidiffusion_ext.core.words import describe
from picture_grid import save_grid

PROMPTS = ["penguin", "magnet", "avocado", "red heart"]
LABELS = {"Relay": "Relay, the method that begins small"}
LARGEST = 1024
"""Pixels per side, so that nobody waits for an hour by mistake."""


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    try:
        wanted = {} if arguments.t1 is None else {"t1": arguments.t1}
        hidiffusion = Options.from_mapping({"native_size": NATIVE, **wanted})
    except OptionError as error:
        parser.error(str(error))
    size = arguments.height, arguments.width
    prompts: list[str] = arguments.prompt or PROMPTS
    seeds = [arguments.seed + index for index in range(len(prompts))]
    model = DemoModel()
    for prompt in prompts:
        if not any(caption in prompt.lower() for caption in model.captions):
            print(f'"{prompt}" is nothing this model has seen. It knows: {", ".join(model.captions)}.')

    def plan(options: Options) -> Plan:
        return make_plan(options, model.unet_map, (size[0] // CELL, size[1] // CELL), SITUATION)

    one_pass = plan(hidiffusion)
    active = describe(one_pass, Schedule(evenly_spaced(arguments.steps, 999)))
    relay = plan(Options(native_size=NATIVE, method=Method.RELAY))
    native = model.sample(prompts, seeds, steps=arguments.steps, progress=_bar("native"))
    rows = {f"{NATIVE}x{NATIVE}, enlarged: what the model was trained for": _enlarged(native, size)}
    seconds: dict[str, float] = {}
    patches = {
        "Direct": untouched,
        "HiDiffusion": model.patched(one_pass, arguments.seed),
        "Relay": model.patched(relay, arguments.seed),
    }
    for name, patch in patches.items():
        started = time.perf_counter()
        pictures = model.sample(prompts, seeds, size, patch=patch, steps=arguments.steps, progress=_bar(name))
        seconds[name] = time.perf_counter() - started
        rows[f"{LABELS.get(name, name)}: {seconds[name]:.1f} s"] = pictures
    speedup = seconds["Direct"] / seconds["HiDiffusion"]

    arguments.out.mkdir(parents=True, exist_ok=True)
    save_grid(arguments.out / "demo.png", rows, columns=prompts)
    report = {
        "prompts": prompts,
        "seeds": seeds,
        "height": size[0],
        "width": size[1],
        "steps": arguments.steps,
        "active": active,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "speedup": round(speedup, 2),
    }
    (arguments.out / "demo.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nActive: {active}")
    for name, taken in seconds.items():
        print(f"{name} {taken:.1f} s: {seconds['Direct'] / taken:.2f}x")
    print(f"Pictures: {(arguments.out / 'demo.png').resolve()}")


def _enlarged(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Square pictures as large as fit, in the middle of white ones of (height, width)."""
    side = min(size)
    large = F.interpolate(pictures, size=(side, side), mode="bilinear").clamp(0, 1)
    left, top = (size[1] - side) // 2, (size[0] - side) // 2
    return F.pad(large, (left, size[1] - side - left, top, size[0] - side - top), value=1.0)


def _bar(name: str) -> partial[Iterable[int]]:
    return partial(tqdm, desc=f"{name:>11}", unit="step", file=sys.stdout)


def _side(text: str) -> int:
    side = int(text) if text.isdecimal() else 0
    if side % CELL or not NATIVE // 2 <= side <= LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text}: a side is a multiple of {CELL} from {NATIVE // 2} to {LARGEST} pixels"
        )
    return side


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python run.py demo", description=__doc__)
    parser.add_argument("--prompt", nargs="+", help=f"what to draw, one picture each (default: {', '.join(PROMPTS)})")
    parser.add_argument(
        "--width", type=_side, default=2 * NATIVE, help="of the pictures in pixels (default %(default)s)"
    )
    parser.add_argument("--height", type=_side, default=2 * NATIVE, help="likewise")
    parser.add_argument("--seed", type=int, default=3, help="of the first picture (default %(default)s)")
    parser.add_argument("--t1", type=float, help="share of the steps with RAU-Net (default: the preset's)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the sheet (default %(default)s)")
    return parser


if __name__ == "__main__":
    main()
