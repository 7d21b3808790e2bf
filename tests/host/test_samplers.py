"""Where T1 ends with every sampler and scheduler a host has: a table, and the promise that it is where it should be."""

from __future__ import annotations

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


def evaluations(webui: WebUI, sampler: str, scheduler: str) -> list[tuple[float, bool]]:
    """The timestep of each evaluation of a pass, and whether RAU-Net's downsampler was strided."""
    options: dict[str, Any] = {"enabled": True, "native_size": 64, "msw_msa": False, "t1": SHARE}
    webui.txt2img(
        sampler_name=sampler,
        scheduler=scheduler,
        steps=STEPS,
        width=128,
        height=128,
        alwayson_scripts={"HiDiffusion": {"args": [options]}},
        probe=[{"unet": True}],
    )
    return [(event["t"], event["stride"] == 4) for event in webui.events() if event["event"] == "unet"]


def test_t1_ends_at_its_noise(webui: WebUI) -> None:
    schedulers = [scheduler["label"] for scheduler in webui.call("/sdapi/v1/schedulers")]
    wrong: list[str] = []
    for sampler in (entry["name"] for entry in webui.call("/sdapi/v1/samplers")):
        for scheduler in schedulers[:1] if sampler in WITHOUT_SCHEDULER else schedulers:
            seen = evaluations(webui, sampler, scheduler)
            active = [t for t, strided in seen if strided]
            last = f"{active[-1]:.0f}" if active else "-"
            rows.setdefault(sampler, {})[scheduler] = f"{len(active)} of {len(seen)}, t {last}"
            if not active or any(strided != (t > END) for t, strided in seen if abs(t - END) > 1):
                wrong.append(f"{sampler} {scheduler}: {seen}")
    assert not wrong
    assert len(rows) > 5
