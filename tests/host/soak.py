"""Hundreds of random jobs on a running WebUI, two clients at once, and whether anything drifts.

    PYTHONPATH=.:tests/host python tests/host/soak.py http://127.0.0.1:7860 --jobs 500

The WebUI runs with `--api`, this extension and tests/host/probe; its models should be small. Every `--every` jobs the
clients pause for a check: a canary job with HiDiffusion off and one with it on must give their first pictures to the
bit, no hook may be on the UNet, and the memory of the process is noted. Writes out/soak.json; exits with 1 if a check
failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from client import HTTPError, WebUI

CLIENTS = 2
NATIVE = 128
SIDES = (64, 96, 128, 136, 192, 200, 256)
SAMPLERS = ("Euler a", "Heun", "DPM++ 2M", "DDIM", "DPM adaptive", "UniPC", "Restart")
OPTIONS: dict[str, list[Any]] = {
    "method": ["HiDiffusion", "ScaleCrafter"],
    "preset": ["Auto", "2x", "4x", "Turbo"],
    "t1": [0.2, 0.6, 1.0],
    "msw_msa": [True, False],
    "rau_net": [True, False],
    "dispersion": [True, False],
    "window_shift": ["Cycle", "Random"],
}
MISTAKES: list[Any] = [{"t1": "high"}, {"preset": "8x"}, {"nonsense": 1}, "yes", None, 7, {"native_size": -1}]


@dataclass
class Check:
    """What was seen after a number of jobs; `memory` in bytes."""

    jobs: int
    memory: int
    hooks: int
    pictures: list[str]


def random_job(choose: random.Random, checkpoints: list[str]) -> dict[str, Any]:
    """A payload; a few are interrupted, fail in the UNet or are asked for wrongly."""
    options: dict[str, Any] = {"enabled": choose.random() < 0.8, "native_size": NATIVE}
    options |= {name: choose.choice(values) for name, values in OPTIONS.items() if choose.random() < 0.5}
    argument = choose.choice(MISTAKES) if choose.random() < 0.1 else options
    job: dict[str, Any] = {
        "width": choose.choice(SIDES),
        "height": choose.choice(SIDES),
        "steps": choose.choice([4, 7]),  # UniPC refuses fewer
        "batch_size": choose.choice([1, 1, 2]),
        "cfg_scale": choose.choice([1, 5]),
        "seed": choose.randrange(10**6),
        "sampler_name": choose.choice(SAMPLERS),
        "prompt": choose.choice(["a cat", "a cat AND a dog :0.5", "a cat " * 40]),
        "alwayson_scripts": {"HiDiffusion": {"args": [argument]}},
        "probe": [choose.choice([{}, {}, {}, {"interrupt": 2}, {"raise": {"where": "unet", "at": 1}}])],
    }
    if choose.random() < 0.2:
        job |= {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7}
    if choose.random() < 0.1:
        job["override_settings"] = {"sd_model_checkpoint": choose.choice(checkpoints)}
    return job


def picture_of(webui: WebUI, enabled: bool) -> str:
    """A digest of the canary's picture."""
    script = {"HiDiffusion": {"args": [{"enabled": enabled, "native_size": NATIVE}]}}
    (picture,), _ = webui.txt2img(width=200, height=256, steps=4, alwayson_scripts=script, probe=[{}])
    return hashlib.sha256(picture.tobytes()).hexdigest()


def check(webui: WebUI, jobs: int) -> Check:
    pictures = [picture_of(webui, False), picture_of(webui, True)]
    memory = int(webui.call("/sdapi/v1/memory")["ram"]["used"])
    return Check(jobs, memory, webui.fingerprint()["hooks"], pictures)


def slope(checks: list[Check]) -> float:
    """Bytes the process grows by per 100 jobs, by least squares over the second half of the checks."""
    half = checks[len(checks) // 2 :]
    return float(np.polyfit([one.jobs for one in half], [one.memory for one in half], 1)[0]) * 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    webui = WebUI(arguments.url)
    # A1111 itself fails at txt2img with InstructPix2Pix, and at hires fix with inpainting models.
    checkpoints = [name for name in webui.checkpoints() if not {"pix2pix", "inpainting"} & {*name.split("-")}]
    choose, lock = random.Random(arguments.seed), threading.Lock()
    outcomes: Counter[str] = Counter()

    def one_job(job: dict[str, Any]) -> None:
        try:
            webui.txt2img(**job)
            outcome = "made"
        except HTTPError as error:  # with HiDiffusion the picture is made all the same
            outcome = "failed as asked" if "asked for in unet" in str(error) else f"failed: {error}: {json.dumps(job)}"
        with lock:
            outcomes[outcome] += 1

    checks = [check(webui, 0)]
    while checks[-1].jobs < arguments.jobs:
        jobs = [random_job(choose, checkpoints) for _ in range(arguments.every)]
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(one_job, jobs))
        webui.call("/sdapi/v1/options", {"sd_model_checkpoint": checkpoints[0]})
        checks.append(check(webui, checks[-1].jobs + len(jobs)))
        print(f"{checks[-1].jobs} jobs, {checks[-1].memory / 2**20:.0f} MiB, {dict(outcomes)}", flush=True)
    problems = [f"after {one.jobs} jobs another canary" for one in checks if one.pictures != checks[0].pictures]
    problems += [f"after {one.jobs} jobs {one.hooks} hooks" for one in checks if one.hooks]
    problems += [outcome for outcome in outcomes if outcome.startswith("failed:")]
    report = {
        "outcomes": dict(outcomes),
        "bytes_per_100_jobs": slope(checks),
        "problems": problems,
        "checks": [asdict(one) for one in checks],
    }
    out = Path("out/soak.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n".join(problems) or "Nothing drifted.", f"{slope(checks) / 2**20:+.2f} MiB per 100 jobs.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
