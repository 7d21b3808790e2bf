"""Where T1 ends with every sampler and scheduler a host has: a table, and the promise that it is where it should be and
where the plan says.
"""

from __future__ import annotations

import itertools
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client import WebUI

STEPS, SHARE = 10, 0.4
END = 1000 * (1 - SHARE)
"""The timestep at which that share of the model's noise schedule is over."""

TABLE = Path("out/samplers.md")

WITHOUT_SCHEDULER = {"DPM fast", "DPM adaptive", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"}
"""Samplers that make their own schedule and look at no scheduler."""

OF_ITS_OWN_STEPS = {"DPM adaptive"}
"""Samplers whose steps depend on what the model answers, down to its last bit: they may pass over a planned one."""

rows: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Writes what was seen when all has been seen."""
    yield
    columns = list(dict.fromkeys(scheduler for row in rows.values() for scheduler in row))
    lines = [f"| sampler | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(row.get(column, '') for column in columns)} |" for name, row in rows.items()]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


OPTIONS: dict[str, Any] = {"native_size": 64, "msw_msa": False, "t1": SHARE}


def told_and_said(webui: WebUI, **job: Any) -> tuple[list[str], list[str]]:
    """What the plan of a job says of its passes, and what the text under the picture says of them."""
    job = {"steps": STEPS, "width": 128, "height": 128, **job}
    told = webui.call(f"/hidiffusion/v1/plan?{urllib.parse.urlencode({**job, **OPTIONS})}")
    arguments = {"HiDiffusion": {"args": [{"enabled": True, **OPTIONS}]}}
    _, info = webui.txt2img(**job, alwayson_scripts=arguments, probe=[{"unet": True}])
    said = info["extra_generation_params"]
    keys = ["HiDiffusion", "HiDiffusion hires"] if job.get("enable_hr") else ["HiDiffusion"]
    return [one["text"] for one in told["passes"] if one["active"]], [said[key] for key in keys if key in said]


def kept(told: str, said: str, sampler: str) -> bool:
    """Whether a pass was what the plan had said."""
    step = re.compile(r"(?<=step )\d+")
    if sampler not in OF_ITS_OWN_STEPS or step.sub("", told) != step.sub("", said):
        return told == said
    return all(int(ended) <= int(planned) for planned, ended in zip(step.findall(told), step.findall(said)))


def test_t1_ends_at_its_noise(webui: WebUI, kind: str) -> None:
    """On the stand-in with one scheduler in turn each: `test_sampling` has every sampler with every scheduler."""
    schedulers = [scheduler["label"] for scheduler in webui.call("/sdapi/v1/schedulers")]
    in_turn = itertools.cycle(schedulers)
    wrong: list[str] = []
    for sampler in (entry["name"] for entry in webui.call("/sdapi/v1/samplers")):
        own = itertools.islice(in_turn, 1) if kind == "stand-in" else schedulers
        for scheduler in schedulers[:1] if sampler in WITHOUT_SCHEDULER else own:
            told, said = told_and_said(webui, sampler_name=sampler, scheduler=scheduler)
            seen = [(event["t"], event["stride"] == 4) for event in webui.events() if event["event"] == "unet"]
            active = [t for t, strided in seen if strided]
            last = f"{active[-1]:.0f}" if active else "-"
            rows.setdefault(sampler, {})[scheduler] = f"{len(active)} of {len(seen)}, t {last}"
            if not active or any(strided != (t > END) for t, strided in seen if abs(t - END) > 1):
                wrong.append(f"{sampler} {scheduler}: {seen}")
            if told != said:
                wrong.append(f"{sampler} {scheduler}: told {told}, done {said}")
    assert not wrong
    assert len(rows) > 5


def test_the_plan_knows_the_steps_of_a_second_pass(webui: WebUI, kind: str) -> None:
    """On the stand-in with every third sampler: `test_plan_route` has all of them, with every scheduler."""
    schedulers = [scheduler["label"] for scheduler in webui.call("/sdapi/v1/schedulers")]
    samplers = [sampler["name"] for sampler in webui.call("/sdapi/v1/samplers")]
    wrong: list[str] = []
    for number in range(0, max(len(samplers), len(schedulers)), 3 if kind == "stand-in" else 1):
        job = {"sampler_name": samplers[number % len(samplers)], "scheduler": schedulers[number % len(schedulers)]}
        hires = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.8}
        told, said = told_and_said(webui, **job, **hires)
        if not len(told) == len(said) == 2 or not all(map(kept, told, said, [job["sampler_name"]] * 2)):
            wrong.append(f"{job}: told {told}, done {said}")
    assert not wrong
