"""What only the stand-in can show quickly: several checkpoints, the page, and "Reload UI". The rest: tests/host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import server
from client import HTTPError, WebUI, encode

PROBE = Path(__file__).resolve().parent.parent / "host" / "probe"


@pytest.fixture(scope="module")
def webui() -> Iterator[WebUI]:
    with server.running([PROBE]) as url:
        yield WebUI(url, steps=2)


@pytest.fixture(autouse=True)
def default_checkpoint(request: pytest.FixtureRequest) -> None:
    if "webui" in request.fixturenames:
        webui = request.getfixturevalue("webui")
        webui.call("/sdapi/v1/options", {"sd_model_checkpoint": "tiny-sd1", "sd_checkpoints_limit": 1})
        webui.txt2img(steps=1)  # an overridden checkpoint stays loaded until the next job


def test_same_config_keeps_the_unet_object(webui: WebUI) -> None:
    before = webui.fingerprint()
    first, _ = webui.txt2img(seed=1)
    other, info = webui.txt2img(seed=1, override_settings={"sd_model_checkpoint": "tiny-sd1-b"}, probe=[{"unet": True}])
    after = webui.fingerprint()
    assert (after["id"], after["modules"]) == (before["id"], before["modules"])
    assert after["weights"] != before["weights"]
    assert info["sd_model_name"] == "tiny-sd1-b"
    assert not np.array_equal(first[0], other[0])
    assert "model_loaded" in webui.names()
    again, _ = webui.txt2img(seed=1)  # without the override the checkpoint of the settings comes back
    assert np.array_equal(first[0], again[0])
    assert webui.fingerprint() == before


def test_other_config_is_another_unet(webui: WebUI) -> None:
    before = webui.fingerprint()
    webui.txt2img(override_settings={"sd_model_checkpoint": "tiny-sdxl"}, probe=[{"unet": True}])
    after = webui.fingerprint()
    assert after["id"] != before["id"]
    assert after["modules"].keys() != before["modules"].keys()
    assert [name for name in after["modules"] if name.endswith("transformer_blocks.1")]  # SDXL's are deeper than one
    assert webui.events()[-1]["event"] == "close"


def test_a_kept_checkpoint_returns_without_model_loaded(webui: WebUI) -> None:
    webui.call("/sdapi/v1/options", {"sd_checkpoints_limit": 2})
    first = webui.fingerprint()["id"]
    webui.txt2img(override_settings={"sd_model_checkpoint": "tiny-sd1-b"}, probe=[])
    assert webui.fingerprint()["id"] != first
    webui.txt2img(probe=[])
    assert webui.fingerprint()["id"] == first
    assert "model_loaded" not in webui.names()


@pytest.mark.parametrize(
    "extra",
    [
        {"refiner_checkpoint": "tiny-sdxl", "refiner_switch_at": 0.5},
        {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "hr_checkpoint_name": "tiny-sdxl"},
    ],
)
def test_checkpoint_switch_within_a_job(webui: WebUI, extra: dict) -> None:
    webui.txt2img(probe=[{"unet": True}], steps=4, **extra)
    names = webui.names()
    assert names.index("unet") < names.index("model_loaded") < len(names) - names[::-1].index("unet")


def test_sdxl_generates_at_any_size(webui: WebUI) -> None:
    images, _ = webui.txt2img(
        override_settings={"sd_model_checkpoint": "tiny-sdxl"}, width=136, height=88, prompt="a AND b " * 2
    )
    assert images[0].shape == (88, 136, 3)
    assert images[0].std() > 5


def test_inpainting_keeps_what_is_not_painted(webui: WebUI) -> None:
    mask = np.zeros((webui.size, webui.size), np.uint8)
    mask[:, : webui.size // 2] = 255
    for sampler in ("Euler", "DDIM"):
        white = np.full((webui.size, webui.size, 3), 255, np.uint8)
        images, _ = webui.img2img(
            white, mask=encode(mask), denoising_strength=1, steps=4, sampler_name=sampler, probe=[]
        )
        assert images[0][:, -32:].min() > 250
        assert images[0][:, :32].min() < 250
        assert webui.names().count("on_mask_blend") > 1


def test_guidance_options(webui: WebUI) -> None:
    def batches(**settings) -> list[int]:
        webui.txt2img(probe=[{"unet": True}], prompt="cat " * 100, override_settings=settings)
        return [e["x"][0] for e in webui.events() if e["event"] == "unet"]

    assert batches() == [1, 1, 1, 1]
    assert batches(pad_cond_uncond=True) == [2, 2]
    assert batches(pad_cond_uncond=True, batch_cond_uncond=False) == [1, 1, 1, 1]
    assert batches(s_min_uncond=4.0) == [1, 1, 1]  # every second step below this sigma goes without uncond
    assert batches(skip_early_cond=0.4) == [1, 1, 1]


def test_refused_requests(webui: WebUI) -> None:
    for extra, status in (
        ({"alwayson_scripts": {"x/y/z plot": {"args": []}}}, 422),
        ({"enable_hr": True, "hr_upscaler": "no"}, 500),
    ):
        with pytest.raises(HTTPError) as error:
            webui.txt2img(**extra)
        assert error.value.status == status


def test_page(webui: WebUI) -> None:
    config = webui.call("/config")
    ids = {component["props"].get("elem_id") for component in config["components"]}
    assert {
        "txt2img_width",
        "img2img_height",
        "txt2img_hr",
        "txt2img_hr-checkbox",
        "txt2img_hr_scale",
        "txt2img_hr_resize_x",
        "txt2img_hires_steps",
        "img2img_denoising_strength",
        "txt2img_generate",
        "script_txt2img_probe_text",
    } <= ids


@pytest.fixture(scope="module")
def loaded() -> None:
    """The stand-in, loaded into this process."""
    server.create_app([PROBE])


def test_paste(loaded: None) -> None:
    from modules import infotext_utils, scripts

    fields = infotext_utils.paste_fields["txt2img"]["fields"]
    text = (
        "cat\nNegative prompt: dog\nSteps: 9, Sampler: Heun, CFG scale: 3, Seed: 5, Size: 640x256, "
        'Hires upscale: 1.5, Denoising strength: 0.4, Probe text: "a, b"'
    )
    updates = zip(fields, infotext_utils.paste_values(fields, text))
    values = {field.component.label: update.get("value") for field, update in updates}
    assert (values["Prompt"], values["Negative prompt"], values["Sampling steps"]) == ("cat", "dog", 9)
    assert (values["Width"], values["Height"], values["Hires. fix"], values["Upscale by"], values["Probe text"]) == (
        640,
        256,
        True,
        1.5,
        "a, b",
    )
    assert scripts.scripts_txt2img.script("Probe").name == "probe"


def test_reload_unloads_and_loads_once(loaded: None) -> None:
    from modules import script_callbacks, scripts

    unloaded = []
    before = {name: len(callbacks) for name, callbacks in script_callbacks.callback_map.items()}
    script_callbacks.on_script_unloaded(lambda: unloaded.append(1))
    old = scripts.scripts_txt2img
    server.reload_app()
    assert unloaded == [1]
    assert scripts.scripts_txt2img is not old
    assert {name: len(callbacks) for name, callbacks in script_callbacks.callback_map.items()} == before


def test_settings_of_extensions(loaded: None) -> None:
    from modules import shared

    changed = []
    shared.opts.add_option(
        "test_setting", shared.OptionInfo(1, "A setting", onchange=lambda: changed.append(1)).info("more")
    )
    assert shared.opts.test_setting == 1
    assert [shared.opts.set("test_setting", 2) for _ in range(2)] == [True, False]
    assert (shared.opts.test_setting, changed) == (2, [1])


def test_input_accordion(loaded: None) -> None:
    import gradio as gr

    from modules.ui_components import InputAccordion

    with gr.Blocks(), InputAccordion(True, label="Mine", elem_id="mine") as accordion:
        inside = gr.Number(1)
    assert isinstance(accordion, gr.Checkbox)
    assert accordion.value is True
    assert (accordion.elem_id, accordion.accordion.elem_id, accordion.visible) == ("mine-checkbox", "mine", False)
    assert inside.parent in accordion.accordion.children  # a Form
