"""Where T1 ends with every sampler and scheduler a host has: a table, and the promise that it is where it should be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client import WebUI

STEPS, SHARE = 10, 0.4
EXPECTED = int(STEPS * SHARE)
TABLE = Path("out/samplers.md")

WITHOUT_SCHEDULER = {"DPM fast", "DPM adaptive", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"}
"""Samplers that make their own schedule and look at no scheduler."""

OWN_COUNT = {"DPM fast", "DPM adaptive", "Restart"}
"""Samplers whose evaluations are not one or two for each step in turn."""

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


def evaluations(webui: WebUI, sampler: str, scheduler: str) -> list[bool]:
    """Whether RAU-Net's downsampler was strided, per evaluation of a pass."""
    options: dict[str, Any] = {"enabled": True, "native_size": 64, "msw_msa": False, "preset": "Custom", "t1": SHARE}
    webui.txt2img(
        sampler_name=sampler,
        scheduler=scheduler,
        steps=STEPS,
        width=128,
        height=128,
        alwayson_scripts={"HiDiffusion": {"args": [options]}},
        probe=[{"unet": True}],
    )
    return [event["stride"] == 4 for event in webui.events() if event["event"] == "unet"]


def test_t1_ends_where_counting_the_steps_ends_it(webui: WebUI) -> None:
    schedulers = [scheduler["label"] for scheduler in webui.call("/sdapi/v1/schedulers")]
    wrong: list[str] = []
    for sampler in (entry["name"] for entry in webui.call("/sdapi/v1/samplers")):
        for scheduler in schedulers[:1] if sampler in WITHOUT_SCHEDULER else schedulers:
            strided = evaluations(webui, sampler, scheduler)
            active = sum(strided)
            rows.setdefault(sampler, {})[scheduler] = f"{active} of {len(strided)}"
            if sampler in OWN_COUNT:
                right = strided[0] and 0 < active < len(strided)
            else:
                per_step = 1 if len(strided) <= STEPS + 1 else 2
                right = strided == [True] * active + [False] * (len(strided) - active)
                right = right and abs(active / per_step - EXPECTED) <= 1
            if not right:
                wrong.append(f"{sampler} {scheduler}: {active} of {len(strided)}")
    assert not wrong
    assert len(rows) > 5
