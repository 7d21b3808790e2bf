"""How the host behaves, whoever the host is: these tests hold on the stand-in and on A1111 v1.10.1 alike.

They are what allows the other tests to trust the stand-in. Nothing here depends on what our extension does.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from client import HTTPError, WebUI

SEE_UNET = {"unet": True}
EVALUATION = ["cfg_denoiser", "unet", "cfg_denoised", "cfg_after_cfg"]
START = ["setup", "before_process", "process"]
BATCH = ["before_process_batch", "process_batch", "process_before_every_sampling"]
DECODED = ["postprocess_batch"]
END = ["postprocess", "close"]


def test_order_of_hooks(webui: WebUI) -> None:
    webui.txt2img(probe=[SEE_UNET], steps=3)
    assert webui.names(drop=("model_loaded",)) == START + BATCH + EVALUATION * 3 + DECODED + END


def test_order_with_batches(webui: WebUI) -> None:
    images, info = webui.txt2img(probe=[SEE_UNET], steps=2, n_iter=2, batch_size=2)
    assert webui.names() == START + (BATCH + EVALUATION * 2 + DECODED) * 2 + END
    assert len(images) == 4
    assert info["all_seeds"] == [7, 8, 9, 10]
    events = webui.events()
    assert [e["batch_number"] for e in events if e["event"] == "process_batch"] == [0, 1]
    assert [e["seeds"] for e in events if e["event"] == "process_batch"] == [[7, 8], [9, 10]]
    assert {tuple(e["x"]) for e in events if e["event"] == "unet"} == {(4, 4, webui.size // 8, webui.size // 8)}


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_order_with_hires_fix(webui: WebUI, upscaler: str) -> None:
    images, _ = webui.txt2img(
        probe=[SEE_UNET], steps=2, enable_hr=True, hr_scale=1.5, hr_upscaler=upscaler, denoising_strength=0.5
    )
    again = ["before_hr", "process_before_every_sampling"]
    assert webui.names() == START + BATCH + EVALUATION * 2 + again + EVALUATION * 2 + DECODED + END
    assert images[0].shape == (webui.size * 3 // 2, webui.size * 3 // 2, 3)

    first, second = (e for e in webui.events() if e["event"] == "process_before_every_sampling")
    small, large = webui.size // 8, webui.size // 8 * 3 // 2
    assert (first["is_hr_pass"], second["is_hr_pass"]) == (False, True)
    assert first["x"] == first["noise"] == [1, 4, small, small]
    assert second["x"] == second["noise"] == [1, 4, large, large]
    assert first["size"] == second["size"] == [webui.size, webui.size]  # p.width and p.height stay the first pass's
    assert [e["x"][-1] for e in webui.events() if e["event"] == "unet"] == [small] * 2 + [large] * 2


def test_order_of_img2img(webui: WebUI) -> None:
    webui.img2img(probe=[SEE_UNET], steps=4, denoising_strength=0.5)
    assert webui.names() == START + BATCH + EVALUATION * 3 + DECODED + END


def test_what_exists_when(webui: WebUI) -> None:
    webui.txt2img(probe=[], enable_hr=True, hr_scale=2, hr_upscaler="Latent", steps=1, denoising_strength=0.5)
    size = [webui.size * 2] * 2
    seen = [(e["event"], e["sampler"], e["hr_upscale_to"]) for e in webui.events() if "sampler" in e]
    assert seen[:2] == [("before_process", "NoneType", [0, 0]), ("process", "NoneType", [0, 0])]
    assert ("process_batch", "NoneType", size) in seen
    assert seen.count(("process_before_every_sampling", "KDiffusionSampler", size)) == 2
    assert ("postprocess", "NoneType", size) in seen  # the hires pass forgets its sampler
    webui.img2img(probe=[], steps=2)
    assert ("process_batch", "KDiffusionSampler") in [
        (e["event"], e["sampler"]) for e in webui.events() if "sampler" in e
    ]


def test_xyz_plot_runs_copies_of_the_job(webui: WebUI) -> None:
    """One `setup` and one `close`; every cell is a copy of p that goes through process_images."""
    seed, nothing = [1, "3,4", []], [0, "", []]
    webui.txt2img(
        probe=[SEE_UNET],
        steps=2,
        script_name="X/Y/Z plot",
        script_args=[*seed, *nothing, *nothing, False, True, False, False, False, False, False, 0, True],
    )
    cell = [*START[1:], *BATCH, *EVALUATION * 2, *DECODED, "postprocess"]
    assert webui.names() == ["setup", *cell, *cell, "close"]
    assert [e["seeds"] for e in webui.events() if e["event"] == "process_batch"] == [[3], [4]]


def received(webui: WebUI) -> list:
    return next(e["args"] for e in webui.events() if e["event"] == "before_process")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ["", 2.5, True, "plain"]),
        ([], ["", 2.5, True, "plain"]),
        ([{"a": [1, {"b": None}]}], [{"a": [1, {"b": None}]}, 2.5, True, "plain"]),
        ([{}, 99], [{}, 99, True, "plain"]),
        ([{}, "seven", None, 3, "one too many", 5], [{}, "seven", None, 3]),
    ],
)
def test_arguments(webui: WebUI, given: list | None, expected: list) -> None:
    """A positional prefix; the rest are the UI's defaults, what is too much is ignored, nothing is validated."""
    webui.txt2img(probe=given, steps=1)
    assert received(webui) == expected


def test_arguments_by_any_case_of_the_title(webui: WebUI) -> None:
    webui.txt2img(alwayson_scripts={"pRoBe": {"args": [{}, 4]}}, steps=1)
    assert received(webui)[1] == 4
    webui.txt2img(alwayson_scripts={"Probe": {}}, steps=1)
    assert received(webui)[1] == 2.5


def test_script_info(webui: WebUI) -> None:
    infos = [info for info in webui.call("/sdapi/v1/script-info") if info["name"] == "probe"]
    assert [(info["is_alwayson"], info["is_img2img"]) for info in infos] == [(True, False), (True, True)]
    args = [(a["label"], a["value"]) for a in infos[0]["args"]]
    assert args == [("Probe request", ""), ("Probe number", 2.5), ("Probe flag", True), ("Probe text", "plain")]


def test_unknown_script(webui: WebUI) -> None:
    with pytest.raises(HTTPError) as error:
        webui.txt2img(alwayson_scripts={"no such script": {"args": []}})
    assert error.value.status == 422
    with pytest.raises(HTTPError) as error:
        webui.txt2img(script_name="no such script")
    assert error.value.status == 422


@pytest.mark.parametrize(
    "where",
    [
        "setup",
        "before_process",
        "process",
        "process_before_every_sampling",
        "cfg_denoiser",
        "cfg_after_cfg",
        "postprocess",
    ],
)
def test_exception_in_a_hook_is_swallowed(webui: WebUI, where: str) -> None:
    expected, _ = webui.txt2img(probe=[], steps=2)
    images, _ = webui.txt2img(probe=[{"raise": {"where": where}}], steps=2)
    assert np.array_equal(images[0], expected[0])
    assert webui.names()[-2:] == END


@pytest.mark.parametrize("what", ["Exception", "Abort"])
def test_exception_in_the_unet(webui: WebUI, what: str) -> None:
    """HTTP 500 and no further hook, but the job is closed; the next job is as ever."""
    expected, _ = webui.txt2img(probe=[], steps=3)
    with pytest.raises(HTTPError) as error:
        webui.txt2img(probe=[{"raise": {"where": "unet", "at": 1, "what": what}}], steps=3)
    assert error.value.status == 500
    assert webui.names() == START + BATCH + EVALUATION + ["cfg_denoiser", "unet", "close"]
    images, _ = webui.txt2img(probe=[], steps=3)
    assert np.array_equal(images[0], expected[0])


def test_interrupt_by_exception(webui: WebUI) -> None:
    images, _ = webui.txt2img(probe=[{"raise": {"where": "unet", "at": 1, "what": "InterruptedException"}}], steps=4)
    assert len(images) == 1
    assert webui.names() == START + BATCH + EVALUATION + ["cfg_denoiser", "unet"] + DECODED + END


@pytest.mark.parametrize("hires", [False, True])
def test_interrupt(webui: WebUI, hires: bool) -> None:
    """The evaluation that runs is finished, no second pass and no second batch follow, and the job ends as usual."""
    images, _ = webui.txt2img(probe=[{"interrupt": 1}], steps=4, n_iter=2, enable_hr=hires, hr_upscaler="Latent")
    assert len(images) == 1
    assert webui.names() == START + BATCH + EVALUATION * 2 + DECODED + END
    images, _ = webui.txt2img(probe=[], steps=1)  # the request to interrupt does not outlive its job
    assert len(images) == 1


# Timesteps that reach the UNet in 4 steps, from A1111 v1.10.1.
TIMESTEPS = {
    ("Euler", "Automatic"): [999, 666, 333, 0],
    ("Euler", "Karras"): [999, 687.2, 145.9, 0],
    ("Euler", "Exponential"): [999, 538.1, 52.4, 0],
    ("Euler", "SGM Uniform"): [999, 749.25, 499.5, 249.75],
    ("Euler", "Simple"): [999, 749, 499, 249],
    ("Euler a", "Automatic"): [999, 666, 333, 0],
    ("LMS", "Automatic"): [999, 666, 333, 0],
    ("Heun", "Automatic"): [999, 666, 666, 333, 333, 0, 0],
    ("DPM2", "Automatic"): [999, 900.6, 786, 621.8, 427.5, 196, 58.9],
    ("DPM++ 2M", "Automatic"): [999, 687.2, 145.9, 0],
    ("DPM++ SDE", "Automatic"): [999, 860.1, 687.2, 406.6, 145.9, 13.7, 0],
    ("DPM fast", "Automatic"): [999, 538.1, 52.4, 233.2],
    ("Restart", "Automatic"): [999, 687.2, 687.2, 145.9, 145.9, 0, 0],
    ("DDIM", "Automatic"): [751, 501, 251],
}


@pytest.mark.parametrize(("sampler", "scheduler"), TIMESTEPS)
def test_timesteps(webui: WebUI, sampler: str, scheduler: str) -> None:
    webui.txt2img(probe=[SEE_UNET], steps=4, sampler_name=sampler, scheduler=scheduler)
    seen = [e["t"] for e in webui.events() if e["event"] == "unet"]
    assert seen == pytest.approx(TIMESTEPS[sampler, scheduler], abs=0.1)


# As above, but img2img at strength 0.5, where A1111 runs int(0.5 * 8) + 1 steps, and DDIM one less.
@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("Euler", [570.9, 428.1, 285.4, 142.7, 0]),
        ("Heun", [570.9, 428.1, 428.1, 285.4, 285.4, 142.7, 142.7, 0, 0]),
        ("DPM++ 2M", [549.0, 298.7, 89.9, 12.0, 0]),
        ("DDIM", [376, 251, 126]),
    ],
)
def test_timesteps_of_img2img(webui: WebUI, sampler: str, expected: list[float]) -> None:
    webui.img2img(probe=[SEE_UNET], steps=8, denoising_strength=0.5, sampler_name=sampler)
    assert [e["t"] for e in webui.events() if e["event"] == "unet"] == pytest.approx(expected, abs=0.1)


def test_steps_of_the_hires_pass(webui: WebUI) -> None:
    """hr_second_pass_steps are really run, whatever the strength: the schedule behind them is longer."""
    webui.txt2img(
        probe=[SEE_UNET],
        steps=2,
        enable_hr=True,
        hr_scale=1.5,
        hr_upscaler="Latent",
        hr_second_pass_steps=3,
        denoising_strength=0.5,
    )
    calls = [e for e in webui.events() if e["event"] == "unet"]
    assert [e["t"] for e in calls] == pytest.approx([999, 0, 399.6, 199.8, 0], abs=0.1)


@pytest.mark.parametrize(
    ("sampler", "expected"), [("Euler", [0, 0, 1, 2]), ("Heun", [0, 0, 0, 1, 1, 2, 2]), ("DPM fast", [0, 0, 0, 0])]
)
def test_sampling_step_lags_behind(webui: WebUI, sampler: str, expected: list[int]) -> None:
    webui.txt2img(probe=[SEE_UNET], steps=4, sampler_name=sampler)
    assert [e["sampling_step"] for e in webui.events() if e["event"] == "unet"] == expected


def test_unequal_prompt_lengths_take_two_calls(webui: WebUI) -> None:
    webui.txt2img(probe=[SEE_UNET], steps=1, prompt="cat " * 100, batch_size=2)
    events = webui.events()
    calls = [len(list(group)) for name, group in groupby(e["event"] for e in events) if name == "unet"]
    assert calls == [2]
    assert {e["x"][0] for e in events if e["event"] == "unet"} == {2}


def test_composed_prompts(webui: WebUI) -> None:
    webui.txt2img(probe=[SEE_UNET], steps=1, prompt="a cat AND a dog :0.5")
    events = {e["event"]: e for e in webui.events()}
    assert (events["unet"]["x"][0], events["cfg_after_cfg"]["x"][0]) == (3, 1)


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DDIM"])
def test_images_depend_on_their_seed_only(webui: WebUI, sampler: str) -> None:
    one, _ = webui.txt2img(seed=8, sampler_name=sampler)
    again, _ = webui.txt2img(seed=8, sampler_name=sampler)
    batch, _ = webui.txt2img(seed=7, batch_size=2, sampler_name=sampler)
    assert np.array_equal(one[0], again[0])
    assert np.abs(one[0].astype(int) - batch[1]).max() <= 2
    assert np.abs(batch[0].astype(int) - batch[1]).max() > 20


@pytest.mark.parametrize("size", [(136, 120), (72, 200)])
def test_any_multiple_of_8(webui: WebUI, size: tuple[int, int]) -> None:
    images, info = webui.txt2img(width=size[0], height=size[1], steps=1)
    assert images[0].shape == (size[1], size[0], 3)
    assert f"Size: {size[0]}x{size[1]}" in info["infotexts"][0]


@pytest.mark.parametrize("text", ["simple", "a, b", 'key: "value"', "two\nlines", "ünï, ☃: {}"])
def test_infotext_round_trip(webui: WebUI, text: str) -> None:
    _, info = webui.txt2img(probe=[{}, 1, True, text], steps=1)
    assert "Probe text: " in info["infotexts"][0]
    assert "\nSteps: 1, Sampler: Euler, " in info["infotexts"][0]
    webui.call("/sdapi/v1/txt2img", {"infotext": info["infotexts"][0]})
    assert received(webui)[3] == text


def test_infotext_fills_the_request(webui: WebUI) -> None:
    _, info = webui.txt2img(steps=2, cfg_scale=3, width=webui.size + 8)
    answer = webui.call("/sdapi/v1/txt2img", {"infotext": info["infotexts"][0], "seed": 9})
    shown = answer["parameters"]
    assert (shown["steps"], shown["cfg_scale"], shown["width"], shown["seed"]) == (2, 3, webui.size + 8, 9)


def test_fingerprint_is_stable(webui: WebUI) -> None:
    """Generating, being interrupted and failing leave nothing on the UNet by themselves."""
    webui.txt2img(steps=1)
    before = webui.fingerprint()
    webui.txt2img(probe=[{"interrupt": 0}], steps=2)
    with pytest.raises(HTTPError):
        webui.txt2img(probe=[{"raise": {"where": "unet"}}], steps=2)
    webui.img2img(probe=[SEE_UNET], steps=2)
    assert webui.fingerprint() == before
    assert len(before["modules"]) > 600
    assert before["hooks"] == 0


def test_api_lists(webui: WebUI) -> None:
    assert {"title", "model_name"} <= webui.call("/sdapi/v1/sd-models")[0].keys()
    assert webui.call("/sdapi/v1/options")["batch_cond_uncond"] is True
    assert webui.call("/sdapi/v1/interrupt", {}) == {}
