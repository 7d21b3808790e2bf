"""The two tabs, in real gradio, with the host's element ids: enough to see scripts' panels, type sizes and generate."""

from __future__ import annotations

import gradio as gr

from modules import infotext_utils, processing, script_callbacks, scripts, sd_samplers, sd_schedulers, shared
from modules.infotext_utils import PasteField
from modules.ui_components import InputAccordion

# The job's field, the component, the end of its id behind the tab's, its label in the infotext, what it is made with.
FIELDS = [
    ("prompt", gr.Textbox, "prompt", "Prompt", dict(lines=3)),
    ("negative_prompt", gr.Textbox, "neg_prompt", "Negative prompt", {}),
    ("sampler_name", gr.Dropdown, "sampling", "Sampler", dict(value="Euler a")),
    ("scheduler", gr.Dropdown, "scheduler", "Schedule type", dict(value="Automatic")),
    ("steps", gr.Slider, "steps", "Steps", dict(minimum=1, maximum=150, value=20, step=1)),
    ("cfg_scale", gr.Slider, "cfg_scale", "CFG scale", dict(minimum=1.0, maximum=30.0, value=7.0, step=0.5)),
    ("seed", gr.Number, "seed", "Seed", dict(value=-1, precision=0)),
]
PIXELS = dict(minimum=64, maximum=4096, value=512, step=8)
SIZE = [("width", gr.Slider, "width", "Size-1", PIXELS), ("height", gr.Slider, "height", "Size-2", PIXELS)]
STRENGTH = dict(minimum=0.0, maximum=1.0, value=0.7, step=0.01)
DENOISE = [("denoising_strength", gr.Slider, "denoising_strength", "Denoising strength", STRENGTH)]
HIRES = [
    ("hr_upscaler", gr.Dropdown, "hr_upscaler", "Hires upscaler", dict(value="Latent")),
    ("hr_second_pass_steps", gr.Slider, "hires_steps", "Hires steps", dict(minimum=0, maximum=150, value=0, step=1)),
    ("hr_scale", gr.Slider, "hr_scale", "Hires upscale", dict(minimum=1.0, maximum=4.0, value=2.0, step=0.05)),
    ("hr_resize_x", gr.Slider, "hr_resize_x", "Hires resize-1", PIXELS | dict(minimum=0, value=0)),
    ("hr_resize_y", gr.Slider, "hr_resize_y", "Hires resize-2", PIXELS | dict(minimum=0, value=0)),
]
CHOICES = {
    "sampler_name": sd_samplers.visible_sampler_names(),
    "scheduler": [one.label for one in sd_schedulers.schedulers],
    "hr_upscaler": [*shared.latent_upscale_modes, *(one.name for one in shared.sd_upscalers)],
}
HIRES_SAMES = [
    ("Hires sampler", "hr_sampler_name", "Use same sampler"),
    ("Hires schedule type", "hr_scheduler", "Use same scheduler"),
]
"""The page takes these words for nothing, the API does not."""


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

    def create(table: list[tuple]) -> None:
        for name, kind, elem_id, label, made_with in table:
            choices = {"choices": CHOICES[name]} if name in CHOICES else {}
            components[name] = kind(label=label, elem_id=f"{tab}_{elem_id}", interactive=True, **made_with, **choices)
            fields.append(PasteField(components[name], label, api=name))

    generate = gr.Button("Generate", elem_id=f"{tab}_generate")
    paste = gr.Button("Paste", elem_id="paste")
    create(FIELDS)
    if img2img:
        with gr.Tabs():
            with gr.TabItem("Resize to", id="to", elem_id="img2img_tab_resize_to"):
                create(SIZE)
            with gr.TabItem("Resize by", id="by", elem_id="img2img_tab_resize_by"):
                gr.Slider(0.05, 4.0, 1.0, step=0.05, label="Scale", elem_id="img2img_scale", interactive=True)
        gr.Image(type="pil", label="Image", elem_id="img2img_image", image_mode="RGBA")
        create(DENOISE)
    else:
        create(SIZE)
        with InputAccordion(False, label="Hires. fix", elem_id="txt2img_hr") as components["enable_hr"]:
            create(HIRES + DENOISE)
        fields.append(PasteField(components["enable_hr"], lambda d: "Denoising strength" in d, api="enable_hr"))
        for label, api, same in HIRES_SAMES:
            shown = gr.Textbox(value=same, visible=False)
            fields.append(PasteField(shown, lambda d, label=label, same=same: d.get(label, same), api=api))
    script_inputs = runner.setup_ui()
    gallery = gr.Gallery(label="Output", elem_id=f"{tab}_gallery")
    info = gr.Textbox(label="Infotext", elem_id=f"{tab}_infotext")
    fields += [PasteField(*field) for field in runner.infotext_fields]
    infotext_utils.paste_fields[tab] = {"fields": fields}
    pasted = [field.component for field in fields]
    paste.click(lambda text: infotext_utils.paste_values(fields, text), inputs=[components["prompt"]], outputs=pasted)

    def run(*values):
        kind, given = processing.StableDiffusionProcessingTxt2Img, dict(zip(components, values))
        processed = processing.run_job(kind, given, runner, values[len(components) :])
        return processed.images, processed.info

    if not img2img:  # nobody presses the other one
        generate.click(run, inputs=[*components.values(), *script_inputs], outputs=[gallery, info])
