"""A second pass of the demo model: where it begins, how long it is, and what it leaves alone."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from told import parts_of

import demo
from demo_model import DemoModel
from hidiffusion_ext.core.parts.part import WHOLE


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel()


def timesteps_of(model: DemoModel, **settings: object) -> list[float]:
    seen: list[float] = []

    @contextmanager
    def patch(timesteps: Sequence[float]) -> Generator[None]:
        seen.extend(timesteps)
        yield

    model.draw(["star"], [1], (16, 16), patch=patch, **settings)  # type: ignore[arg-type]
    return seen


def test_a_whole_pass_is_evenly_spaced(model: DemoModel) -> None:
    assert timesteps_of(model, steps=5) == [999, 799, 599, 400, 200]


@pytest.mark.parametrize(("strength", "count"), [(0.2, 3), (0.5, 6), (0.9, 10)])
def test_a_second_pass_begins_at_its_strength(model: DemoModel, strength: float, count: int) -> None:
    timesteps = timesteps_of(model, steps=10, begin=torch.zeros(1, 4, 16, 16), strength=strength)
    assert len(timesteps) == count
    assert timesteps[0] == round(999 * strength)
    assert timesteps == sorted(timesteps, reverse=True)


def test_a_weak_second_pass_changes_little_and_a_strong_one_much(model: DemoModel) -> None:
    begin = model.draw(["red apple"], [1], (16, 16), steps=10)
    changes = [
        float((model.draw(["red apple"], [2], (16, 16), steps=10, begin=begin, strength=strength) - begin).std())
        for strength in (0.05, 0.3, 0.9)
    ]
    assert changes == sorted(changes)
    assert changes[0] < 0.3 * float(begin.std())


def test_the_encoder_undoes_the_decoder(model: DemoModel) -> None:
    x = model.draw(["red apple"], [1], (16, 16), steps=10)
    assert float((model.encode(model.decode(x)) - x).std()) < 0.35 * float(x.std())


@pytest.mark.parametrize("latent", [(25, 25), (24, 12)])
def test_any_size_can_be_drawn(model: DemoModel, latent: tuple[int, int]) -> None:
    assert model.draw(["star"], [1], latent, steps=1).shape == (1, 4, *latent)


def test_the_demo_writes_its_sheet_and_says_what_was_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--prompt", "star", "--width", "256", "--height", "192", "--steps", "5", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["demo", *asked])
    demo.main()
    (active,) = re.findall(r"Active: (.*)", capsys.readouterr().out)
    assert parts_of(active) == {"RAU-Net": (1, 2, 5), "MSW-MSA": WHOLE}
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    told = json.loads((tmp_path / "demo.json").read_text())
    assert list(told["seconds"]) == ["Direct", "HiDiffusion", "Relay"]
