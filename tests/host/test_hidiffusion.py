"""What the extension does in a WebUI, through its HTTP API; each test on the stand-in and on a real host.

The stand-in's pictures are a quarter of the size of those asked for, so that the real sizes can be named here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import webuiapi
from client import HTTPError, WebUI, encode

from hidiffusion_ext.core.options import SETTINGS

ON: dict[str, Any] = {"enabled": True}
RAU_NET_ONLY: dict[str, Any] = {**ON, "msw_msa": False, "faster_second_pass": "Off"}
SIZES = [(1024, 1024), (720, 1280), (1216, 832)]
SAMPLERS = [("Euler a", "Automatic"), ("DPM++ 2M", "Karras"), ("Heun", "Automatic"), ("DDIM", "Automatic")]


class Host:
    """A WebUI with the extension, and requests in sizes it can make in seconds."""

    def __init__(self, webui: WebUI) -> None:
        self.webui = webui
        self.scale = webui.scale
        self.native = round(512 * self.scale)

    def size(self, width: int, height: int) -> dict[str, int]:
        """A size in multiples of 8, scaled."""
        return {"width": round(width * self.scale / 8) * 8, "height": round(height * self.scale / 8) * 8}

    def payload(self, options: dict[str, Any] | list[Any] | None, payload: dict[str, Any]) -> dict[str, Any]:
        if options is not None:
            if isinstance(options, dict):
                native = {"native_size": self.native} if self.scale < 1 else {}
                options = [{**native, **options}]
            payload["alwayson_scripts"] = {"HiDiffusion": {"args": options}}
        return {"steps": 2, **payload}

    def txt2img(self, options: Any = None, **payload: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
        return self.webui.txt2img(**self.payload(options, {**self.size(512, 512), **payload}))

    def img2img(self, options: Any = None, **payload: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
        """A1111 encodes the picture with noise from the global random numbers: those that a job ahead of it leaves."""
        self.webui.img2img(steps=1, override_settings=payload.get("override_settings", {}))
        return self.webui.img2img(**self.payload(options, {**self.size(512, 512), **payload}))


@pytest.fixture
def host(webui: WebUI) -> Iterator[Host]:
    """A WebUI whose UNet every test must leave exactly as it found it."""
    before = webui.fingerprint()
    yield Host(webui)
    after = webui.fingerprint()
    assert after["hooks"] == 0
    if after["id"] == before["id"]:
        assert after["digest"] == before["digest"]


def said(info: dict[str, Any]) -> dict[str, Any]:
    """What the infotext says about HiDiffusion."""
    return {key: value for key, value in info["extra_generation_params"].items() if key.startswith("HiDiffusion")}


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize("job", ["txt2img", "large", "img2img", "hires"])
def test_switched_off_pictures_are_those_of_a_host_that_never_had_it(
    host: Host, webui_without: WebUI, job: str
) -> None:
    def make(webui: WebUI, options: Any) -> list[np.ndarray]:
        one = Host(webui)
        if job == "img2img":
            return one.img2img(options)[0]
        if job == "large":
            return one.txt2img(options, steps=2, **one.size(1024, 768))[0]
        hires = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7} if job == "hires" else {}
        return one.txt2img(options, **hires)[0]

    expected = make(webui_without, None)
    host.txt2img(ON, steps=2, **host.size(1024, 768))
    assert same(make(host.webui, None), expected)
    assert same(make(host.webui, [False]), expected)


def test_nothing_happens_at_the_native_size(host: Host) -> None:
    expected, _ = host.txt2img()
    images, info = host.txt2img(ON)
    assert same(images, expected)
    assert said(info) == {}


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_large_pictures_are_changed_and_say_so(host: Host, width: int, height: int) -> None:
    size = host.size(width, height)
    images, info = host.txt2img(ON, steps=3, **size)
    plain, _ = host.txt2img(steps=3, **size)
    assert images[0].shape == plain[0].shape
    if images[0].shape != (size["height"], size["width"], 3):
        pytest.skip("this host makes pictures of such sizes in others")
    odd = any(side // 8 % 2 for side in size.values())
    assert said(info)["HiDiffusion"] == "RAU-Net until step 1 of 3, MSW-MSA" + " on resized odd feature maps" * odd
    assert "HiDiffusion: " in info["infotexts"][0]
    assert not same(images, plain)
    assert same(images, host.txt2img(ON, steps=3, **size)[0])


def test_scalecrafter(host: Host) -> None:
    size = host.size(1024, 768)
    options = {**ON, "method": "ScaleCrafter", "msw_msa": False}
    images, info = host.txt2img(options, steps=3, **size)
    assert said(info)["HiDiffusion"] == "re-dilation until step 2 of 3"
    assert said(info)["HiDiffusion Method"] == "ScaleCrafter"
    assert not same(images, host.txt2img(steps=3, **size)[0])
    strong = {**options, "preset": "4x", "damped_guidance": False}
    dispersed, info = host.txt2img({**strong, "dispersion": True}, steps=3, **size)
    assert said(info)["HiDiffusion"] == "re-dilation with dispersed convolution until step 2 of 3"
    assert not same(images, dispersed)
    hires = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.7}
    _, info = host.txt2img(options, **host.size(384, 384), **hires)
    assert said(info)["HiDiffusion hires"].startswith("re-dilation")


@pytest.mark.parametrize("sampler", ["Euler a", "Heun", "DDIM"])
def test_noise_damped_guidance(host: Host, sampler: str) -> None:
    size = {**host.size(1024, 768), "steps": 4, "sampler_name": sampler}
    options = {**ON, "method": "ScaleCrafter", "preset": "4x", "msw_msa": False}
    damped, info = host.txt2img(options, **size)
    until = "until step 2 of 3" if sampler == "DDIM" else "until step 2 of 4"
    assert said(info)["HiDiffusion"] == f"re-dilation {until}, noise-damped guidance {until}"
    undamped, info = host.txt2img({**options, "damped_guidance": False}, **size)
    assert said(info)["HiDiffusion"] == f"re-dilation {until}"
    assert not same(damped, undamped)
    # Without guidance there is nothing to damp.
    unguided = [host.txt2img({**options, "damped_guidance": on}, **size, cfg_scale=1)[0] for on in (True, False)]
    assert same(*unguided)


def test_noise_damped_guidance_in_batches_and_with_composed_prompts(host: Host) -> None:
    options = {**ON, "method": "ScaleCrafter", "preset": "4x"}
    job = {**host.size(768, 1024), "steps": 3, "prompt": "a cat AND a dog " * 3 + ":0.5", "seed": 5}
    together, info = host.txt2img(options, **job, batch_size=2)
    assert "noise-damped guidance" in said(info)["HiDiffusion"]
    for image, seed in zip(together[-2:], (5, 6)):
        (single,), _ = host.txt2img(options, **{**job, "seed": seed})
        assert np.abs(single.astype(int) - image.astype(int)).max() <= 1


def test_a_pass_that_begins_where_the_layout_is_settled_is_left_alone(host: Host) -> None:
    request = {"denoising_strength": 0.3, "steps": 6, **host.size(768, 768)}
    images, info = host.img2img(RAU_NET_ONLY, **request)
    assert said(info) == {}
    assert same(images, host.img2img(**request)[0])
    _, info = host.img2img({**ON, "faster_second_pass": "Off"}, **request)
    assert said(info)["HiDiffusion"] == "MSW-MSA, no RAU-Net because the layout is settled where this pass begins"


@pytest.mark.parametrize(("sampler", "scheduler"), SAMPLERS)
def test_samplers(host: Host, sampler: str, scheduler: str) -> None:
    request = {"sampler_name": sampler, "scheduler": scheduler, "steps": 5, **host.size(768, 768)}
    images, info = host.txt2img(ON, **request)
    assert said(info)["HiDiffusion"].startswith("RAU-Net")
    assert not same(images, host.txt2img(**request)[0])


@pytest.mark.parametrize(("strength", "active", "run"), [(0.55, 1, 5), (1.0, 4, 8)])
def test_img2img_uses_the_steps_it_really_runs(host: Host, strength: float, active: int, run: int) -> None:
    request = {"denoising_strength": strength, "steps": 8, **host.size(768, 768)}
    only_raunet, info = host.img2img({**RAU_NET_ONLY, "t1": 0.5}, **request)
    assert said(info)["HiDiffusion"] == f"RAU-Net until step {active} of {run}"
    assert not same(only_raunet, host.img2img(**request)[0])


def test_hires_fix_changes_the_pass_that_is_too_large(host: Host) -> None:
    request = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.7, "steps": 2}
    images, info = host.txt2img(ON, **request)
    assert said(info).keys() - {"HiDiffusion Native size"} == {"HiDiffusion hires", "HiDiffusion version"}
    assert not same(images, host.txt2img(**request)[0])
    first, info = host.txt2img({**ON, "passes": "First"}, **request)
    assert same(first, host.txt2img(**request)[0])
    assert said(info) == {}


BATCHES: dict[str, dict[str, Any]] = {
    "a batch of 4": {"batch_size": 4},
    "4 batches": {"n_iter": 4},
    "2 batches of 2": {"batch_size": 2, "n_iter": 2},
    "conditions in calls of their own": {"override_settings": {"batch_cond_uncond": False}},
    "the same job again": {},
}


LONGER = {"a batch of 4", "4 batches"}
"""What two batches of two have in them as well."""


@pytest.mark.parametrize(
    "batch", [pytest.param(name, marks=pytest.mark.slow if name in LONGER else ()) for name in BATCHES]
)
@pytest.mark.parametrize("method", ["HiDiffusion", "ScaleCrafter", "Relay"])
def test_a_picture_does_not_depend_on_its_batch(host: Host, batch: str, method: str) -> None:
    """But for the last digit of sums that other batches add up in another order: one level of 255 in one of a hundred
    values, or what it is to the host's own pictures."""
    if BATCHES[batch].get("override_settings", {}).keys() - host.webui.call("/sdapi/v1/options").keys():
        pytest.skip("this host has no such setting")

    def differences(options: dict[str, Any] | None) -> tuple[int, float]:
        """Between the pictures of the batch and those of single jobs with their seeds: the largest, in 1/255, and the
        share of values with any."""
        images, info = host.txt2img(options, **BATCHES[batch], **host.size(768, 768))
        seeds = info["all_seeds"]
        pairs = zip(images[-len(seeds) :], seeds)  # some hosts put a grid first
        singles = [(image, host.txt2img(options, seed=seed, **host.size(768, 768))[0][0]) for image, seed in pairs]
        each = np.stack([np.abs(image.astype(int) - single.astype(int)) for image, single in singles])
        return int(each.max()), float((each > 0).mean())

    largest, share = differences({**ON, "method": method})
    assert (largest <= 1 and share <= 0.01) or largest <= differences(None)[0]


def test_unequal_prompts_that_split_the_batch_change_nothing(host: Host) -> None:
    request = {"prompt": "a cat " * 40, **host.size(768, 768)}
    images, _ = host.txt2img(ON, **request)
    assert same(images, host.txt2img(ON, **request)[0])


def plot(host: Host, x: tuple[str, Any], y: tuple[str, Any] = ("Nothing", "")) -> list[Any]:
    """Arguments of the host's X/Y/Z plot for axes by name; the plot gives the single pictures, too."""
    info = {s["name"]: s for s in host.webui.call("/sdapi/v1/script-info") if not s["is_img2img"]}["x/y/z plot"]
    labels = info["args"][0]["choices"]
    axes: list[Any] = []
    for label, values in (x, y, ("Nothing", "")):
        axes += [labels.index(label), values, []]
    wanted = {"Draw legend": False, "Include Sub Images": True, "Use text inputs instead of dropdowns": True}
    others = [wanted.get(argument["label"], argument["value"]) for argument in info["args"][len(axes) :]]
    return [*axes, *others]


def infotexts(info: dict[str, Any]) -> list[str]:
    return [text for text in info["infotexts"] if text]


def test_every_setting_has_an_axis(host: Host) -> None:
    for info in host.webui.call("/sdapi/v1/script-info"):
        if info["name"] == "x/y/z plot":
            labels = [label for label in info["args"][0]["choices"] if label.startswith("[HiDiffusion] ")]
            assert labels == [f"[HiDiffusion] {setting.key}" for setting in SETTINGS.values()]


def test_the_cells_of_an_xyz_plot_are_the_pictures_of_single_jobs(host: Host) -> None:
    size = {**host.size(768, 768), "steps": 4}
    axes = plot(host, ("[HiDiffusion] T1", "0.25-0.5 (+0.25)"), ("[HiDiffusion] Enabled", "True,False"))
    cells, info = host.txt2img(ON, script_name="X/Y/Z plot", script_args=axes, **size)
    off, _ = host.txt2img(**size)
    assert any(np.array_equal(off[0], image) for image in cells)
    for t1 in (0.25, 0.5):
        (single,), single_info = host.txt2img({**ON, "t1": t1}, **size)
        index = next(i for i, image in enumerate(cells) if np.array_equal(single, image))
        assert infotexts(info)[index] == single_info["infotexts"][0]
        assert f"HiDiffusion T1: {t1}" in infotexts(info)[index]
    assert sum("HiDiffusion" not in text for text in infotexts(info)) == 2  # nothing is left of the cell before


def test_a_plot_over_methods_leaves_no_hires_fix_behind(host: Host) -> None:
    size = {**host.size(1024, 768), "steps": 8}
    methods = ["Native first", "HiDiffusion", "Relay", "Native first"]
    axes = plot(host, ("[HiDiffusion] Method", ",".join(methods)))
    _, info = host.txt2img(ON, script_name="X/Y/Z plot", script_args=axes, **size)
    of_plot = [text for text in infotexts(info) if "Script: " in text]
    assert not any("Hires" in text or "Denoising" in text for text in of_plot)  # it asks for what its cells were asked
    cells = [text for text in infotexts(info) if text not in of_plot]
    singles = {method: host.txt2img({**ON, "method": method}, **size)[1]["infotexts"][0] for method in methods}
    assert cells[-4:] == [singles[method] for method in methods]
    assert ["Hires" in singles[method] or "Denoising" in singles[method] for method in methods] == [1, 0, 0, 1]


def test_axes_with_choices_and_several_jobs_behind_a_positional_request(host: Host) -> None:
    native = host.native if host.scale < 1 else 0
    arguments = [True, "HiDiffusion", True, True, False, True, "Auto", 0.0, 0.0, "Both", native]
    size = {**host.size(768, 768), "steps": 4}
    axes = plot(host, ("[HiDiffusion] Method", "hidiffusion, ScaleCrafter"), ("[HiDiffusion] MSW-MSA", "False"))
    cells, info = host.txt2img(arguments, script_name="X/Y/Z plot", script_args=axes, **size)
    for method in ("HiDiffusion", "ScaleCrafter"):
        (single,), single_info = host.txt2img({**ON, "method": method, "msw_msa": False}, **size)
        index = next(i for i, image in enumerate(cells) if np.array_equal(single, image))
        assert infotexts(info)[index] == single_info["infotexts"][0]


def test_an_axis_beside_one_of_prompts(host: Host) -> None:
    size = host.size(768, 768)
    axes = plot(host, ("[HiDiffusion] MSW-MSA", "True,False"), ("Prompt S/R", "cat,dog"))
    cells, info = host.txt2img(ON, script_name="X/Y/Z plot", script_args=axes, **size)
    for prompt in ("a cat", "a dog"):
        for windows in (True, False):
            (single,), single_info = host.txt2img({**ON, "msw_msa": windows}, prompt=prompt, **size)
            index = next(i for i, image in enumerate(cells) if np.array_equal(single, image))
            assert infotexts(info)[index] == single_info["infotexts"][0]


@pytest.mark.parametrize(
    ("axis", "values"),
    [("Preset", "Auto,8x"), ("T1", "0.5,1.5"), ("Enabled", "True,perhaps"), ("Native size", "512,8192")],
)
def test_a_wrong_value_on_an_axis_is_refused_before_the_first_picture(host: Host, axis: str, values: str) -> None:
    request = {**host.size(768, 768), "probe": [{"unet": True}]}
    axes = plot(host, ("Nothing", ""), (f"[HiDiffusion] {axis}", values))
    with pytest.raises(HTTPError) as refused:
        host.txt2img(ON, script_name="X/Y/Z plot", script_args=axes, **request)
    assert "is not possible; allowed is" in refused.value.args[0]
    assert "unet" not in host.webui.names()


@pytest.mark.parametrize("refiner", ["tiny-sd1-b", "tiny-sdxl"])
def test_a_refiner_takes_over_in_the_middle_of_the_pass(host: Host, refiner: str) -> None:
    if refiner not in host.webui.checkpoints():
        pytest.skip(f"this host has no model {refiner}")
    job = {"refiner_checkpoint": refiner, "refiner_switch_at": 0.5, "steps": 4, **host.size(768, 768)}
    before, _ = host.txt2img(**job)
    images, info = host.txt2img({**ON, "t1": 1.0}, **job)
    assert said(info)["HiDiffusion"] == "RAU-Net until step 4 of 4, MSW-MSA"
    assert "HiDiffusion refused" not in said(info)
    assert not same(images, before)
    assert same(host.txt2img(**job)[0], before)
    host.txt2img(steps=1)  # the host goes back to the first model with the next job


def test_a_hires_pass_with_a_checkpoint_of_its_own(host: Host) -> None:
    hires = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.7}
    job = {"hr_checkpoint_name": "tiny-sd1-b", "steps": 4, **hires, **host.size(512, 512)}
    before, _ = host.txt2img(**job)
    images, info = host.txt2img(ON, **job)
    assert said(info)["HiDiffusion hires"].startswith("RAU-Net until step 1 of 4, MSW-MSA")
    assert "HiDiffusion" not in said(info)
    assert not same(images, before)
    assert same(host.txt2img(**job)[0], before)
    host.txt2img(steps=1)  # the host goes back to the first model with the next job


def test_a_tiled_sampler_is_left_alone_and_the_infotext_says_so(host: Host) -> None:
    job = {"probe": [{"tiles": True, "unet": True}], "steps": 3, **host.size(1024, 768)}
    expected, _ = host.txt2img(**job)
    if host.webui.events(drop=tuple({*host.webui.names()} - {"unet"}))[0]["x"][2] == job["height"] // 8:
        pytest.skip("this host calls its UNet where the probe cannot cut")
    images, info = host.txt2img(ON, **job)
    assert same(images, expected)
    assert list(said(info)) == ["HiDiffusion refused"]
    assert "other sizes than the pass's" in said(info)["HiDiffusion refused"]


def test_an_interrupt_leaves_nothing(host: Host) -> None:
    expected, _ = host.txt2img()
    images, _ = host.txt2img(ON, probe=[{"interrupt": 1}], steps=6, **host.size(768, 768))
    assert len(images) == 1
    assert host.webui.fingerprint()["hooks"] == 0
    assert same(host.txt2img()[0], expected)


@pytest.mark.parametrize(
    ("at", "refused", "text"),
    [
        (0, "no RAU-Net from step 1 of 3 on, as that failed ({})", "MSW-MSA"),
        (
            2,
            "switched off: the model could not be run with it ({})",
            "RAU-Net until step 1 of 3, MSW-MSA until step 2 of 3",
        ),
    ],
)
def test_an_error_in_the_model_costs_no_picture(host: Host, at: int, refused: str, text: str) -> None:
    """What is left out is what was at work where it failed."""
    size = host.size(768, 768)
    without, _ = host.txt2img(steps=3, **size)
    order = {"raise": {"where": "unet", "at": at, "what": "Exception"}}
    images, info = host.txt2img(ON, probe=[order], steps=3, **size)
    assert not same(images, without)
    assert said(info)["HiDiffusion refused"] == refused.format("RuntimeError: asked for in unet")
    assert said(info)["HiDiffusion"] == text
    assert host.webui.fingerprint()["hooks"] == 0
    assert same(host.txt2img(steps=3, **size)[0], without)


@pytest.mark.parametrize("what", ["OutOfMemory", "Abort"])
@pytest.mark.parametrize("at", [0, 2])
def test_what_ends_a_job_leaves_nothing(host: Host, what: str, at: int) -> None:
    expected, _ = host.txt2img()
    order = {"raise": {"where": "unet", "at": at, "what": what}}
    with pytest.raises(HTTPError) as failed:
        host.txt2img(ON, probe=[order], steps=3, **host.size(768, 768))
    assert failed.value.status == 500
    left = host.webui.fingerprint()
    assert [name for name, module in left["modules"].items() if module["hooks"] and name] == []
    assert same(host.txt2img()[0], expected)


def test_positional_and_mapping_arguments_mean_the_same(host: Host) -> None:
    size = host.size(768, 768)
    positional = [
        True,
        "HiDiffusion",
        True,
        False,
        False,
        True,
        "2x",
        0.5,
        0.0,
        "Both",
        host.native if host.scale < 1 else 0,
    ]
    by_position, _ = host.txt2img(positional, **size)
    by_name, info = host.txt2img({"enabled": True, "msw_msa": False, "t1": 0.5}, **size)
    assert same(by_position, by_name)
    assert said(info)["HiDiffusion T1"] == "0.5"
    assert said(info)["HiDiffusion MSW-MSA"] == "False"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([{"enabled": True, "strength": 1}], ["'strength'", "t1"]),
        ([{"enabled": True, "t1": 1.5}], ["t1", "1.5", "0 to 1"]),
        ([{"enabled": True, "preset": "8x"}], ["preset", "'8x'", "Auto"]),
        ([{"enabled": "yes"}], ["enabled", "'yes'", "true or false"]),
        ([True, "HiDiffusion", True, True, False, True, None], ["preset", "null"]),
        (["on"], ["enabled", "'on'"]),
    ],
)
def test_wrong_arguments_are_refused_with_a_sentence_and_the_picture_is_made(
    host: Host, args: list[Any], words: list[str]
) -> None:
    size = host.size(768, 768)
    images, info = host.txt2img(args, **size)
    assert same(images, host.txt2img(**size)[0])
    refusal = said(info)
    assert refusal.keys() == {"HiDiffusion refused"}
    for word in words:
        assert word in refusal["HiDiffusion refused"]
        assert word in info["infotexts"][0]


TWO_PASSES = {"hr_sampler_name": None, "hr_scheduler": None, "hr_additional_modules": ["Use same choices"]}
"""What is sent beside an infotext of two passes (docs/api.md); the last of them is Forge's."""


@pytest.mark.parametrize(
    ("options", "beside"), [({"t1": 0.6, "t2": 0.3, "msw_msa": False}, {}), ({"method": "Native first"}, TWO_PASSES)]
)
def test_an_infotext_makes_the_same_picture_again(host: Host, options: dict[str, Any], beside: dict[str, Any]) -> None:
    size = {**host.size(1024, 768), "steps": 8}
    try:
        host.webui.generate("txt2img", {"infotext": host.txt2img(**size)[1]["infotexts"][0]})
    except HTTPError:
        pytest.skip("this host fails on every infotext given to its API")
    images, info = host.txt2img({"enabled": True, **options}, **size)
    again, info_again = host.webui.generate("txt2img", {"infotext": info["infotexts"][0], **beside})
    told, told_again = said(info), said(info_again)
    told.pop("HiDiffusion native first", None)  # the second job has hires fix of its own
    assert told_again == told
    assert same(again, images)


def test_the_public_client(host: Host) -> None:
    address, port = host.webui.url.removeprefix("http://").split(":")
    client = webuiapi.WebUIApi(host=address, port=int(port))
    options = {"enabled": True, **({"native_size": host.native} if host.scale < 1 else {})}
    result = client.txt2img(
        prompt="a cat", steps=2, alwayson_scripts={"HiDiffusion": {"args": [options]}}, **host.size(1024, 768)
    )
    assert "HiDiffusion: " in result.info["infotexts"][0]


def test_the_arguments_are_described(host: Host) -> None:
    info = {s["name"]: s for s in host.webui.call("/sdapi/v1/script-info") if not s["is_img2img"]}["hidiffusion"]
    arguments = {argument["label"]: argument for argument in info["args"]}
    assert next(iter(arguments)) == "HiDiffusion"
    assert arguments["HiDiffusion"]["value"] is False
    assert arguments["Preset"]["choices"] == ["Auto", "2x", "4x", "Turbo"]
    assert (arguments["T1"]["minimum"], arguments["T1"]["maximum"], arguments["T1"]["value"]) == (0, 1, 0)


def test_an_sdxl_model(host: Host) -> None:
    name = next((name for name in host.webui.checkpoints() if "sdxl" in name), None)
    if name is None:
        pytest.skip("this host has no SDXL checkpoint")
    request = {
        "override_settings": {"sd_model_checkpoint": name},
        "override_settings_restore_afterwards": True,
        "steps": 10,
        **host.size(512, 640),
    }
    images, info = host.txt2img({"enabled": True, "native_size": host.native // 2}, **request)
    assert said(info)["HiDiffusion"].startswith("RAU-Net until step 4 of 10 (stronger until step 2), MSW-MSA")
    assert not same(images, host.txt2img(**request)[0])


def test_an_sd2_model_that_predicts_v_is_native_at_768(host: Host) -> None:
    name = next((name for name in host.webui.checkpoints() if "sd2-v" in name), None)
    if name is None:
        pytest.skip("this host has no SD2.1 checkpoint")
    request = {"override_settings": {"sd_model_checkpoint": name}, "steps": 5}
    found = {**ON, "native_size": 0}
    plain, info = host.txt2img(found, **request, width=768, height=768)
    assert not said(info)
    assert same(plain, host.txt2img(**request, width=768, height=768)[0])
    images, info = host.txt2img(found, **request, width=1024, height=1024)
    assert said(info)["HiDiffusion"] == "RAU-Net until step 2 of 5, MSW-MSA"
    assert not same(images, host.txt2img(**request, width=1024, height=1024)[0])


def test_an_inpainting_model_with_nine_channels(host: Host) -> None:
    if "tiny-inpainting" not in host.webui.checkpoints():
        pytest.skip("this host has no inpainting model")
    size = host.size(768, 1024)
    mask = np.zeros((size["height"], size["width"], 3), np.uint8)
    mask[: size["height"] // 2] = 255
    request = {
        "mask": encode(mask),
        "denoising_strength": 0.8,
        "steps": 5,
        "override_settings": {"sd_model_checkpoint": "tiny-inpainting"},
        **size,
    }
    plain = host.img2img(**request)[0]
    images, info = host.img2img(ON, **request)
    assert said(info)["HiDiffusion"] == "RAU-Net until step 2 of 5, MSW-MSA"
    assert not same(images, plain)
    assert same(images, host.img2img(ON, **request)[0])


@pytest.mark.parametrize(
    ("options", "active"),
    [
        ({}, "RAU-Net until step 2 of 6, MSW-MSA"),
        (
            {"method": "ScaleCrafter", "preset": "4x"},
            "re-dilation until step 3 of 6, noise-damped guidance until step 3",
        ),
    ],
)
def test_instruct_pix2pix_with_its_three_rows(host: Host, options: dict[str, Any], active: str) -> None:
    if "tiny-pix2pix" not in host.webui.checkpoints():
        pytest.skip("this host has no InstructPix2Pix model")
    settings = {"sd_model_checkpoint": "tiny-pix2pix"}
    request = {"denoising_strength": 1.0, "image_cfg_scale": 1.5, "steps": 6, "override_settings": settings}
    images, info = host.img2img({**ON, **options}, **request, **host.size(768, 768))
    assert said(info)["HiDiffusion"].startswith(active)
    assert not same(images, host.img2img(**request, **host.size(768, 768))[0])


def test_a_lora_in_the_prompt(host: Host) -> None:
    if "tiny-lora" not in host.webui.loras():
        pytest.skip("this host has no Lora")
    size = {**host.size(768, 768), "steps": 3}
    plain, _ = host.txt2img(ON, **size)
    with_lora, info = host.txt2img(ON, prompt="a cat <lora:tiny-lora:1>", **size)
    assert said(info)["HiDiffusion"].startswith("RAU-Net")
    assert not same(with_lora, plain)
    assert same(host.txt2img(ON, **size)[0], plain)


@pytest.mark.parametrize(("method", "active"), [("HiDiffusion", "MSW-MSA, no RAU-Net"), ("ScaleCrafter", "re-dil")])
def test_a_lora_computed_beside_its_layers(host: Host, method: str, active: str) -> None:
    """The old way by a setting of A1111: beside the downsampler, with the stride that it had when it was loaded."""
    if "tiny-lora" not in host.webui.loras() or "lora_functional" not in host.webui.call("/sdapi/v1/options"):
        pytest.skip("this host has no Lora, or no such setting")
    request = {**host.size(768, 768), "steps": 3, "override_settings": {"lora_functional": True}}
    prompt = "a cat <lora:tiny-lora:1>"
    images, info = host.txt2img({**ON, "method": method}, prompt=prompt, **request)
    assert said(info)["HiDiffusion"].startswith(active)
    assert not same(images, host.txt2img(prompt=prompt, **request)[0])
    assert said(host.txt2img(ON, **request)[1])["HiDiffusion"].startswith("RAU-Net")  # no LoRA in this one


def controlnet_unit(host: Host, sort: str) -> dict[str, Any]:
    """A unit with the host's model of that sort; skips if there is none."""
    name = next((name for name in host.webui.controlnets() if sort in name), None)
    if name is None:
        pytest.skip("this host has no such ControlNet model")
    picture = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    return {"enabled": True, "model": name, "image": picture, "weight": 1.0}


def settings_for_controlnets(host: Host) -> dict[str, Any]:
    """sd-webui-controlnet takes no model narrower than the real ones, so such a host has one checkpoint as wide."""
    wide = next((name for name in host.webui.checkpoints() if "full-random" in name), None)
    return {"override_settings": {"sd_model_checkpoint": wide}} if wide else {}


@pytest.mark.parametrize("sort", ["control", "t2iadapter"])
def test_a_controlnet(host: Host, sort: str) -> None:
    unit = controlnet_unit(host, sort)
    request = {**host.size(1024, 768), "steps": 3, **settings_for_controlnets(host)}

    def with_controlnet(options: Any) -> list[np.ndarray]:
        payload = host.payload(options, dict(request))
        payload.setdefault("alwayson_scripts", {})["ControlNet"] = {"args": [unit]}
        return host.webui.txt2img(**payload)[0][:1]

    always = {**ON, "t1": 1.0, "msw_msa": False}
    guided, plain = with_controlnet(always), host.txt2img(always, **request)[0]
    assert not same(guided, plain)
    assert not same(guided, with_controlnet(None))
    assert same(guided, with_controlnet(always))
    assert same(plain, host.txt2img(always, **request)[0])


@pytest.mark.parametrize(
    ("module", "model", "left_out"),
    [
        ("reference_only", "none", "MSW-MSA"),
        ("reference_adain", "none", "MSW-MSA"),
        ("reference_adain+attn", "none", "MSW-MSA"),
        ("none", "lllite", "RAU-Net"),
    ],
)
def test_controlnets_that_work_in_attentions(webui: WebUI, module: str, model: str, left_out: str) -> None:
    """They leave something on the modules after their first job, so what is compared are jobs after that."""
    host = Host(webui)

    def named(name: str, names: list[str]) -> str:
        return min((found for found in names if name in found.casefold()), key=len, default="")

    unit = {"module": named(module, webui.preprocessors()), "model": named(model, ["None", *webui.controlnets()])}
    if not all(unit.values()):
        pytest.skip("this host has no such preprocessor or ControlNet model")
    picture = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    unit |= {"enabled": True, "image": picture, "weight": 1.0}
    request = {**host.size(1024, 768), "steps": 4}

    def controlled(options: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
        payload = host.payload(options, dict(request))
        payload.setdefault("alwayson_scripts", {})["ControlNet"] = {"args": [unit]}
        images, info = webui.txt2img(**payload)
        return images[:1], said(info)

    plain = host.txt2img(ON, **request)[0]
    without, active = controlled(None)
    assert not active
    before = webui.fingerprint()
    images, active = controlled({**ON, "method": "HiDiffusion"})
    text = active.get("HiDiffusion") or active["HiDiffusion refused"]
    assert f"no {left_out} because" in text
    assert not same(images, plain)
    images, active = controlled({**ON, "method": "ScaleCrafter"})
    assert active["HiDiffusion"].startswith("re-dilation")
    assert same(images, controlled({**ON, "method": "ScaleCrafter"})[0])
    assert same(host.txt2img(ON, **request)[0], plain)
    assert same(controlled(None)[0], without)
    assert webui.fingerprint() == before


SMALL_FIRST = ["Native first", "Relay"]
OF_BOTH_KINDS = [*SAMPLERS[:2], ("DPM++ SDE", "Karras"), ("DDIM", "Automatic"), ("LCM", "Automatic")]


@pytest.mark.parametrize(("sampler", "scheduler"), OF_BOTH_KINDS)
@pytest.mark.parametrize("method", SMALL_FIRST)
def test_a_small_picture_first(host: Host, method: str, sampler: str, scheduler: str) -> None:
    request = {**host.size(1024, 768), "steps": 8, "sampler_name": sampler, "scheduler": scheduler}
    images, info = host.txt2img({**ON, "method": method}, **request)
    plain, _ = host.txt2img(**request)
    assert images[0].shape == plain[0].shape
    if method == "Relay":
        assert said(info)["HiDiffusion"].startswith("relay at ")
    else:
        assert said(info)["HiDiffusion hires"].startswith("MSW-MSA")
        assert info["width"] * info["height"] <= 1.25 * host.native**2
    assert not same(images, plain)
    assert same(images, host.txt2img({**ON, "method": method}, **request)[0])


@pytest.mark.parametrize(("method", "at"), [("Native first", 1), ("Native first", 9), ("Relay", 1), ("Relay", 7)])
def test_an_interrupt_of_a_small_picture_first(host: Host, method: str, at: int) -> None:
    """In the first pass, or native part, and in what comes after it."""
    expected, _ = host.txt2img()
    images, _ = host.txt2img({**ON, "method": method}, probe=[{"interrupt": at}], steps=8, **host.size(1024, 1024))
    assert len(images) == 1
    assert host.webui.fingerprint()["hooks"] == 0
    assert same(host.txt2img()[0], expected)


def told_hires_fix(info: dict[str, Any]) -> dict[str, Any]:
    """The hires fix that a picture's text tells of, as a payload."""
    told = info["extra_generation_params"]
    width, height = map(int, told["Hires resize"].split("x"))
    return {
        "width": info["width"],
        "height": info["height"],
        "enable_hr": True,
        "hr_resize_x": width,
        "hr_resize_y": height,
        "hr_upscaler": told["Hires upscaler"],
        "hr_second_pass_steps": told["Hires steps"],
        "denoising_strength": told["Denoising strength"],
        "hr_cfg": 5,
    }


@pytest.mark.parametrize("batch", [{}, {"batch_size": 2, "n_iter": 2}])
def test_native_first_is_what_its_text_says_of_hires_fix(host: Host, batch: dict[str, int]) -> None:
    size = {**host.size(1024, 768), "steps": 8, **batch}
    images, info = host.txt2img({**ON, "method": "Native first"}, **size)
    by_hand = {**size, **told_hires_fix(info)}
    assert same(images, host.txt2img({**ON, "method": "Native first"}, **by_hand)[0])


@pytest.mark.parametrize("method", SMALL_FIRST)
def test_a_controlnet_with_a_small_picture_first(host: Host, method: str) -> None:
    unit = controlnet_unit(host, "control")
    request = {**host.size(1024, 768), "steps": 8, **settings_for_controlnets(host)}
    options = {**ON, "method": method}

    def made(options: Any, *units: dict[str, Any], **payload: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
        payload = host.payload(options, payload)
        payload.setdefault("alwayson_scripts", {})["ControlNet"] = {"args": [*units]}
        images, info = host.webui.txt2img(**payload)
        return images[:1], info

    plain, _ = made(options, **request)
    images, info = made(options, unit, **request)
    assert not same(images, plain)
    if method == "Native first":
        assert same(images, made(options, unit, **{**request, **told_hires_fix(info)})[0])
        off = made(None, unit, **{**request, **told_hires_fix(info)})[0]
        assert same(off, made({**options, "msw_msa": False, "faster_second_pass": "Off"}, unit, **request)[0])
    else:
        assert "relay" in said(info)["HiDiffusion"]  # at which sizes, or why not
        assert not same(images, made(None, unit, **request)[0])
    assert same(made(options, **request)[0], plain)


@pytest.mark.parametrize("method", SMALL_FIRST)
def test_a_lora_with_a_small_picture_first(host: Host, method: str) -> None:
    if "tiny-lora" not in host.webui.loras():
        pytest.skip("this host has no Lora")
    request = {**host.size(1024, 768), "steps": 8}
    plain, _ = host.txt2img({**ON, "method": method}, **request)
    with_lora, _ = host.txt2img({**ON, "method": method}, prompt="a cat <lora:tiny-lora:1>", **request)
    assert not same(with_lora, plain)
    assert same(host.txt2img({**ON, "method": method}, **request)[0], plain)


ADVANCED = "Advanced Model Sampling for reForge"


@pytest.mark.parametrize(
    ("sampling", "relays"),
    [
        (["Discrete", "v_prediction", False], True),
        (["Discrete", "x0", False], False),
        (["Continuous EDM", "eps", False, "v_prediction"], True),
        (["Continuous EDM", "eps", False, "edm_playground_v2.5"], False),
        (["Continuous V", "eps", False], True),
        (["SD3", "eps", False], False),
        (["Discrete", "v_prediction", True], True),  # last: after it the host fails on continuous ones
    ],
)
def test_a_sampling_object_that_another_extension_puts_in_place(host: Host, sampling: list[Any], relays: bool) -> None:
    """reForge's extension for CosXL, Playground and flows: other timesteps, other noise, other answers of the UNet."""
    if ADVANCED.casefold() not in {script["name"] for script in host.webui.call("/sdapi/v1/script-info")}:
        pytest.skip("this host has no such extension")

    def sampled(method: str) -> tuple[list[dict[str, Any]], str]:
        job = {"steps": 10, "probe": [{"unet": True}], **host.size(768, 768)}
        payload = host.payload({**ON, "method": method}, job)
        payload["alwayson_scripts"][ADVANCED] = {"args": [True, *sampling]}
        _, info = host.webui.txt2img(**payload)
        return [event for event in host.webui.events() if event["event"] == "unet"], said(info)["HiDiffusion"]

    try:
        calls, text = sampled("HiDiffusion")
        strong = sum(call["stride"] > 2 for call in calls)
        assert 0 < strong < 10
        assert text == f"RAU-Net until step {strong} of 10, MSW-MSA"
        _, text = sampled("Relay")
        assert text.startswith("relay at ") == relays
        assert ("no relay because this model predicts neither noise nor v" in text) != relays
    finally:
        host.txt2img(steps=1)  # the host keeps the noise levels of such a job for the next one
