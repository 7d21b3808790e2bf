"""The host's "X/Y/Z plot", reduced to its axes and its loop: one `process_images(copy(p))` per cell, no drawn grid."""

from __future__ import annotations

import csv
import re
from copy import copy

import gradio as gr
import numpy as np

from modules import errors, scripts, sd_schedulers, shared
from modules.processing import Processed, fix_seed, process_images


def apply_field(field):
    def fun(p, x, xs):
        setattr(p, field, x)

    return fun


def apply_override(field):
    def fun(p, x, xs):
        p.override_settings[field] = x

    return fun


def apply_prompt(p, x, xs):
    p.prompt = p.prompt.replace(xs[0], x)


def apply_checkpoint(p, x, xs):
    p.override_settings["sd_model_checkpoint"] = x


def format_value_add_label(p, opt, x):
    return f"{opt.label}: {round(x, 8) if type(x) is float else x}"


def split(text):
    """The values in a text field: comma-separated, in quotes where they hold a comma themselves."""
    return [value.strip() for row in csv.reader([text], skipinitialspace=True) for value in row]


NUMBER = r"([+-]?\d+(?:\.\d*)?)"
RANGE = re.compile(rf"\s*{NUMBER}\s*-\s*{NUMBER}\s*(?:\(([+-]\d+(?:\.\d*)?)\s*\)|\[(\d+)\s*\])?\s*")


def expand(kind, value):
    """The numbers that one entry names: first-last, first-last (+step) or first-last [count]; else the entry itself."""
    found = RANGE.fullmatch(value)
    if not found:
        return [value]
    first, last = kind(found[1]), kind(found[2])
    if found[4]:
        return [kind(number) for number in np.linspace(first, last, int(found[4])).tolist()]
    step = kind(found[3] or 1)
    return list(range(first, last + 1, step)) if kind is int else np.arange(first, last + step, step).tolist()


class AxisOption:
    def __init__(
        self,
        label,
        type,
        apply,
        format_value=format_value_add_label,
        confirm=None,
        cost=0.0,
        choices=None,
        prepare=None,
    ):
        self.label, self.type, self.apply, self.format_value = label, type, apply, format_value
        self.confirm, self.cost, self.choices, self.prepare = confirm, cost, choices, prepare


class AxisOptionImg2Img(AxisOption):
    is_img2img = True


class AxisOptionTxt2Img(AxisOption):
    is_img2img = False


axis_options = [
    AxisOption("Nothing", str, lambda p, x, xs: None),
    AxisOption("Seed", int, apply_field("seed")),
    AxisOption("Steps", int, apply_field("steps")),
    AxisOption("CFG Scale", float, apply_field("cfg_scale")),
    AxisOption("Prompt S/R", str, apply_prompt),
    AxisOption("Sampler", str, apply_field("sampler_name")),
    AxisOption(
        "Schedule type", str, apply_field("scheduler"), choices=lambda: [s.label for s in sd_schedulers.schedulers]
    ),
    AxisOption("Checkpoint name", str, apply_checkpoint, cost=1.0),
    AxisOption("Denoising", float, apply_field("denoising_strength")),
]


class Script(scripts.Script):
    def title(self):
        return "X/Y/Z plot"

    def ui(self, is_img2img):
        self.current_axis_options = [a for a in axis_options if type(a) is AxisOption or a.is_img2img == is_img2img]
        labels = [a.label for a in self.current_axis_options]
        inputs = []
        for axis, first in (("x", 1), ("y", 0), ("z", 0)):
            inputs += [
                gr.Dropdown(
                    label=f"{axis.upper()} type",
                    choices=labels,
                    value=labels[first],
                    type="index",
                    elem_id=self.elem_id(f"{axis}_type"),
                ),
                gr.Textbox(label=f"{axis.upper()} values", lines=1, elem_id=self.elem_id(f"{axis}_values")),
                gr.Dropdown(label=f"{axis.upper()} values", visible=False, multiselect=True, interactive=True),
            ]
        boxes = [
            gr.Checkbox(label=label, value=value)
            for label, value in (
                ("Draw legend", True),
                ("Include Sub Images", False),
                ("Include Sub Grids", False),
                ("Keep -1 for seeds", False),
                ("Vary seeds for X", False),
                ("Vary seeds for Y", False),
                ("Vary seeds for Z", False),
            )
        ]
        margin = gr.Slider(label="Grid margins (px)", minimum=0, maximum=500, value=0, step=2)
        return [*inputs, *boxes, margin, gr.Checkbox(label="Use text inputs instead of dropdowns", value=False)]

    def run(
        self,
        p,
        x_type,
        x_values,
        x_values_dropdown,
        y_type,
        y_values,
        y_values_dropdown,
        z_type,
        z_values,
        z_values_dropdown,
        draw_legend,
        include_lone_images,
        include_sub_grids,
        no_fixed_seeds,
        vary_seeds_x,
        vary_seeds_y,
        vary_seeds_z,
        margin_size,
        csv_mode,
    ):
        if not no_fixed_seeds:
            fix_seed(p)

        def axis(index, text, chosen):
            option = self.current_axis_options[index or 0]
            if option.label == "Nothing":
                return option, [0]
            if option.choices is not None and not csv_mode:
                given = chosen
            else:
                given = option.prepare(text) if option.prepare else split(text)
            if option.type in (int, float):
                given = [number for value in given if value.strip() for number in expand(option.type, value)]
            values = [option.type(value) for value in given]
            if option.confirm:
                option.confirm(p, values)
            return option, values

        (x_opt, xs), (y_opt, ys), (z_opt, zs) = (
            axis(x_type, x_values, x_values_dropdown),
            axis(y_type, y_values, y_values_dropdown),
            axis(z_type, z_values, z_values_dropdown),
        )
        images, infotexts = [], []
        for z in zs:
            for y in ys:
                for x in xs:
                    if shared.state.interrupted:
                        continue
                    pc = copy(p)
                    for option, value, values in ((x_opt, x, xs), (y_opt, y, ys), (z_opt, z, zs)):
                        option.apply(pc, value, values)
                    try:
                        res = process_images(pc)
                    except Exception as e:  # a failing cell does not stop the others
                        errors.display(e, "generating image for xyz plot")
                        res = Processed(p, [], p.seed, "")
                    images += res.images
                    infotexts += res.infotexts
        return Processed(p, images, p.seed, infotexts=infotexts)
