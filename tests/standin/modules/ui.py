"""The two tabs, in real gradio, with the host's element ids: enough to see scripts' panels, type sizes and generate."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import gradio as gr

from modules import (
    infotext_utils,
    processing,
    script_callbacks,
    scripts,
    sd_samplers,
    sd_schedulers,
    shared,
)
from modules.infotext_utils import PasteField
from modules.ui_components import InputAccordion, ToolButton

FIELDS = {  # name of the job's field -> (label in the infotext, component)
    "prompt": ("Prompt", lambda tab: gr.Textbox(label="Prompt", elem_id=f"{tab}_prompt", lines=3)),
    "negative_prompt": (
        "Negative prompt",
        lambda tab: gr.Textbox(label="Negative prompt", elem_id=f"{tab}_neg_prompt"),
    ),
    "sampler_name": (
        "Sampler",
        lambda tab: gr.Dropdown(
            label="Sampling method",
            elem_id=f"{tab}_sampling",
            choices=sd_samplers.visible_sampler_names(),
            value="Euler a",
        ),
    ),
    "scheduler": (
        "Schedule type",
        lambda tab: gr.Dropdown(
            label="Schedule type",
            elem_id=f"{tab}_scheduler",
            choices=[s.label for s in sd_schedulers.schedulers],
            value="Automatic",
        ),
    ),
    "steps": ("Steps", lambda tab: gr.Slider(1, 150, 20, step=1, label="Sampling steps", elem_id=f"{tab}_steps")),
    "n_iter": (None, lambda tab: gr.Slider(1, 100, 1, step=1, label="Batch count", elem_id=f"{tab}_batch_count")),
    "batch_size": (
        "Batch size",
        lambda tab: gr.Slider(1, 8, 1, step=1, label="Batch size", elem_id=f"{tab}_batch_size"),
    ),
    "cfg_scale": (
        "CFG scale",
        lambda tab: gr.Slider(1.0, 30.0, 7.0, step=0.5, label="CFG Scale", elem_id=f"{tab}_cfg_scale"),
    ),
    "seed": ("Seed", lambda tab: gr.Number(label="Seed", value=-1, precision=0, elem_id=f"{tab}_seed")),
}
SIZE = {
    "width": ("Size-1", lambda tab: gr.Slider(64, 4096, 512, step=8, label="Width", elem_id=f"{tab}_width")),
    "height": ("Size-2", lambda tab: gr.Slider(64, 4096, 512, step=8, label="Height", elem_id=f"{tab}_height")),
}
HIRES_FIELDS = {
    "hr_upscaler": (
        "Hires upscaler",
        lambda tab: gr.Dropdown(
            label="Upscaler",
            elem_id="txt2img_hr_upscaler",
            value="Latent",
            choices=[*shared.latent_upscale_modes, *(u.name for u in shared.sd_upscalers)],
        ),
    ),
    "hr_second_pass_steps": (
        "Hires steps",
        lambda tab: gr.Slider(0, 150, 0, step=1, label="Hires steps", elem_id="txt2img_hires_steps"),
    ),
    "hr_scale": (
        "Hires upscale",
        lambda tab: gr.Slider(1.0, 4.0, 2.0, step=0.05, label="Upscale by", elem_id="txt2img_hr_scale"),
    ),
    "hr_resize_x": (
        "Hires resize-1",
        lambda tab: gr.Slider(0, 4096, 0, step=8, label="Resize width to", elem_id="txt2img_hr_resize_x"),
    ),
    "hr_resize_y": (
        "Hires resize-2",
        lambda tab: gr.Slider(0, 4096, 0, step=8, label="Resize height to", elem_id="txt2img_hr_resize_y"),
    ),
}
HIRES_SAMES = [
    ("Hires sampler", "hr_sampler_name", "Use same sampler"),
    ("Hires schedule type", "hr_scheduler", "Use same scheduler"),
]
DENOISE = {
    "denoising_strength": (
        "Denoising strength",
        lambda tab: gr.Slider(
            0.0, 1.0, 0.7, step=0.01, label="Denoising strength", elem_id=f"{tab}_denoising_strength"
        ),
    )
}
SCRIPT = Path(__file__).resolve().parent.parent / "standin.js"


def create_ui() -> gr.Blocks:
    """Build the whole page. Every script's ui() runs once per tab."""
    script_callbacks.ui_settings_callback()
    infotext_utils.paste_fields.clear()
    with gr.Blocks(analytics_enabled=False, title="Stand-in") as demo, gr.Tabs(elem_id="tabs"):
        for tab in ("txt2img", "img2img"):
            with gr.TabItem(tab, id=tab, elem_id=f"tab_{tab}"):
                _create_tab(tab)
    return demo


def _create_tab(tab: str) -> None:
    img2img = tab == "img2img"
    runner = scripts.scripts_img2img if img2img else scripts.scripts_txt2img
    runner.initialize_scripts(is_img2img=img2img)
    components, fields = {}, []

    def create(table: dict) -> None:
        for name, (label, make) in table.items():
            components[name] = make(tab)
            if label:
                fields.append(PasteField(components[name], label, api=name))

    generate = gr.Button("Generate", elem_id=f"{tab}_generate", variant="primary")
    paste = ToolButton("Paste", elem_id="paste")
    create(FIELDS)
    if img2img:
        components["resized_by"] = resized_by = gr.Checkbox(False, visible=False)
        with gr.Tabs(elem_id="img2img_tabs_resize"):
            with gr.TabItem("Resize to", id="to", elem_id="img2img_tab_resize_to") as resize_to:
                create(SIZE)
            with gr.TabItem("Resize by", id="by", elem_id="img2img_tab_resize_by") as resize_by:
                components["scale_by"] = gr.Slider(0.05, 4.0, 1.0, step=0.05, label="Scale", elem_id="img2img_scale")
        resize_to.select(lambda: False, outputs=[resized_by])
        resize_by.select(lambda: True, outputs=[resized_by])
        components["init_images"] = gr.Image(type="pil", label="Image", elem_id="img2img_image", image_mode="RGBA")
        create(DENOISE)
    else:
        create(SIZE)
        with InputAccordion(False, label="Hires. fix", elem_id="txt2img_hr") as components["enable_hr"]:
            create(HIRES_FIELDS | DENOISE)
        fields.append(
            PasteField(
                components["enable_hr"],
                lambda d: (
                    "Denoising strength" in d
                    and ("Hires upscale" in d or "Hires upscaler" in d or "Hires resize-1" in d)
                ),
                api="enable_hr",
            )
        )
        for label, api, same in HIRES_SAMES:  # the page takes these words for nothing, the API does not
            shown = gr.Textbox(value=same, visible=False)
            fields.append(PasteField(shown, lambda d, label=label, same=same: d.get(label, same), api=api))
    runner.prepare_ui()
    script_inputs = runner.setup_ui()
    gallery = gr.Gallery(label="Output", elem_id=f"{tab}_gallery")
    info = gr.Textbox(label="Infotext", elem_id=f"{tab}_infotext")
    fields += runner.infotext_fields
    infotext_utils.add_paste_fields(tab, fields)
    infotext_utils.connect_paste(paste, fields, components["prompt"])

    def run(*values):
        given = dict(zip(components, values))
        if img2img:
            image, scale = given.pop("init_images"), given.pop("scale_by")
            given["init_images"] = [image]
            if given.pop("resized_by"):
                given["width"], given["height"] = int(image.width * scale), int(image.height * scale)
        processed = generate_images(img2img, given, values[len(components) :])
        return processed.images, processed.info

    generate.click(run, inputs=[*components.values(), *script_inputs], outputs=[gallery, info])


def generate_images(img2img: bool, fields: dict, script_args: tuple) -> processing.Processed:
    """One job started from the page."""
    runner = scripts.scripts_img2img if img2img else scripts.scripts_txt2img
    kind = processing.StableDiffusionProcessingImg2Img if img2img else processing.StableDiffusionProcessingTxt2Img
    shared.state.begin("task(page)")
    try:
        with closing(kind(sd_model=shared.sd_model, **fields)) as p:
            p.scripts, p.script_args = runner, script_args
            return runner.run(p, *script_args) or processing.process_images(p)
    finally:
        shared.state.end()
