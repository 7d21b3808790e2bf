"""What Native first makes of a job ends with it: nothing of a hires fix in what comes after, whoever makes it."""

from __future__ import annotations

import itertools
from copy import copy
from typing import Any

import pytest
from job_host import Host
from test_xyz import axes

from hidiffusion_ext.core import Method, Options
from hidiffusion_ext.core.options import SETTINGS
from hidiffusion_ext.hosts import native_first
from hidiffusion_ext.hosts.schedules import hires_latent
from modules import scripts, sd_models, shared
from modules.infotext_utils import parse_generation_parameters
from modules.processing import StableDiffusionProcessingTxt2Img, create_infotext, process_images

LARGE = {
    "width": 128,
    "height": 128,
    "steps": 6,
    "seed": 1,
    "prompt": "a cat",
    "sampler_name": "Euler",
    "scheduler": "Automatic",
}
OF_ONE_RUN = {"c", "uc", "rng", "sampler", "comments", "prompts", "negative_prompts", "seeds", "subseeds"}
OF_ONE_RUN |= {"all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds", "extra_network_data", "iteration"}
OF_ONE_RUN |= {"sd_model_name", "sd_model_hash", "batch_index", "extra_generation_params"}


@pytest.fixture(autouse=True)
def started(host: Host) -> None:
    """The host, with its scripts loaded."""


def job(settings: dict[str, Any] | None = None, **fields: Any) -> Any:
    """A job as a script of the page gets it, with Native first unless other settings are given."""
    runner = scripts.scripts_txt2img
    p = StableDiffusionProcessingTxt2Img(**{**LARGE, **fields})
    values = [getattr(control, "value", 0) for control in runner.inputs]
    (script,) = runner.alwayson_scripts
    values[script.args_from] = {"enabled": True, "native_size": 64, "method": "Native first", **(settings or {})}
    p.scripts, p.script_args = runner, values
    shared.state.begin("")
    return p


def pixels(result: Any) -> list[bytes]:
    return [picture.tobytes() for picture in result.images]


def asked(p: Any) -> dict[str, Any]:
    """What a job is, but for what every run leaves on it."""
    return {name: value for name, value in vars(p).items() if name not in OF_ONE_RUN}


def of_hires_fix(text: str) -> dict[str, Any]:
    """What a text has of hires fix."""
    told = parse_generation_parameters(text)
    return {key: value for key, value in told.items() if value and key.startswith(("Hires", "Denois"))}


@pytest.mark.parametrize(
    ("axis", "values"),
    [("method", ["Native first", "HiDiffusion", "Native first", "Relay"]), ("enabled", ["True", "False", "True"])],
)
def test_cells_of_a_plot_are_single_jobs(axis: str, values: list[str]) -> None:
    apply = axes()[list(SETTINGS).index(axis)].apply
    p, before = job(), asked(job())
    singles = {
        value: process_images(job({axis: value == "True" if axis == "enabled" else value})) for value in {*values}
    }
    for value in values:
        cell = copy(p)
        apply(cell, value, values)
        made, single = process_images(cell), singles[value]
        assert made.infotexts == single.infotexts
        assert pixels(made) == pixels(single)
        is_made_in_two = value in ("Native first", "True")
        assert bool(of_hires_fix(made.infotexts[0])) == is_made_in_two
        # The plot's own text is made of the cell when it is over, and asks for what made it.
        of_plot = create_infotext(cell, cell.all_prompts, cell.all_seeds)
        assert not of_hires_fix(of_plot)
        assert "Size: 128x128" in of_plot
        assert ("HiDiffusion native first: " in of_plot) == is_made_in_two
    assert asked(p) == {**before, "script_args_value": p.script_args}


def test_a_list_of_prompts_is_single_jobs() -> None:
    p = job(negative_prompt="dog")
    singles = {line: process_images(job(prompt=line, negative_prompt="dog")) for line in ("a cat", "a house")}
    for line in ("a cat", "a house", "a cat"):
        cell = copy(p)
        cell.prompt = line
        made, single = process_images(cell), singles[line]
        assert (made.infotexts, pixels(made)) == (single.infotexts, pixels(single))


def out_of_memory(*_: Any) -> None:
    raise MemoryError


@pytest.mark.parametrize("fails", ["", "decode_first_stage"])
def test_the_same_job_made_again_follows_its_new_settings(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    p = job()
    before = asked(p)
    if fails:
        with monkeypatch.context() as broken:
            broken.setattr(sd_models.model_data.sd_model, fails, out_of_memory)
            with pytest.raises(MemoryError):
                process_images(p)
    else:
        process_images(p)
        assert asked(p) == before
        assert not {key for key in p.extra_generation_params if key.startswith(("Hires", "Denois"))}
    p.width, p.prompt = 96, "a house"
    again, single = process_images(p), process_images(job(width=96, prompt="a house"))
    assert (again.infotexts, pixels(again)) == (single.infotexts, pixels(single))
    assert asked(p) == {**before, "width": 96, "prompt": "a house"}
    p.width = p.height = 64
    again = process_images(p)
    assert not of_hires_fix(again.infotexts[0])
    assert "HiDiffusion" not in again.infotexts[0]


def test_every_size_is_that_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host cuts what is left over a multiple of 8."""
    monkeypatch.setattr(native_first, "native_side", lambda *_: 128)
    monkeypatch.setattr(native_first, "_numbers_of_steps", lambda *_: range(6, 8))
    monkeypatch.setattr(native_first, "_second_pass", lambda *_: (6, 0.4, ""))
    found = 0
    for width, height in itertools.product([*range(120, 400, 5), 1000], [*range(120, 480, 5), 803]):
        job = StableDiffusionProcessingTxt2Img(width=width, height=height)
        if arranged := native_first.arrangement(job, Options(method=Method.NATIVE_FIRST)):
            vars(job).update(arranged.fields)
            job.calculate_target_resolution()
            assert hires_latent(job) == (height // 8, width // 8)
            assert job.width % 8 == job.height % 8 == 0
            found += 1
    assert found > 3000
