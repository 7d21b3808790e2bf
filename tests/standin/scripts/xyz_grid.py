"""The host's "X/Y/Z plot", reduced to its axes and its loop: one `process_images(copy(p))` per cell, no drawn grid."""

from __future__ import annotations

import csv
import re
from collections import namedtuple
from copy import copy
from itertools import product

import gradio as gr
import numpy as np

from modules import scripts, shared
from modules.processing import Processed, process_images


def format_value_add_label(p, opt, x):
    return f"{opt.label}: {round(x, 8) if type(x) is float else x}"


def split(text):
    """The values in a text field: comma-separated, in quotes where they hold a comma themselves."""
    return [value.strip() for row in csv.reader([text], skipinitialspace=True) for value in row]


NUMBER = r"([+-]?\d+(?:\.\d*)?)"
RANGE = re.compile(rf"{NUMBER}\s*-\s*{NUMBER}(?:\s*\(([+-]\d+(?:\.\d*)?)\s*\))?")


def expand(kind, value):
    """The numbers that one entry names: those of a range first-last or first-last (+step), or the entry itself."""
    found = RANGE.fullmatch(value)
    if not found:
        return [value]
    first, last, step = kind(found[1]), kind(found[2]), kind(found[3] or 1)
    return list(range(first, last + 1, step)) if kind is int else np.arange(first, last + step, step).tolist()


AxisOption = namedtuple(
    "AxisOption",
    ["label", "type", "apply", "format_value", "confirm", "cost", "choices"],
    defaults=(format_value_add_label, None, 0.0, None),
)

axis_options = [
    AxisOption("Nothing", str, lambda p, x, xs: None),
    AxisOption("Seed", int, lambda p, x, xs: setattr(p, "seed", x)),
    AxisOption("Prompt S/R", str, lambda p, x, xs: setattr(p, "prompt", p.prompt.replace(xs[0], x))),
]


class Script(scripts.Script):
    def title(self):
        return "X/Y/Z plot"

    def ui(self, is_img2img):
        labels, inputs = [option.label for option in axis_options], []
        for axis in "XYZ":
            inputs += [
                gr.Dropdown(label=f"{axis} type", choices=labels, value=labels[0], type="index"),
                gr.Textbox(label=f"{axis} values", lines=1),
                gr.Dropdown(label=f"{axis} values", visible=False, multiselect=True, interactive=True),
            ]
        names = ("Draw legend", "Include Sub Images", "Include Sub Grids", "Keep -1 for seeds")
        inputs += [gr.Checkbox(label=name, value=name == "Draw legend") for name in names]
        inputs += [gr.Checkbox(label=f"Vary seeds for {axis}", value=False) for axis in "XYZ"]
        inputs.append(gr.Slider(label="Grid margins (px)", minimum=0, maximum=500, value=0, step=2))
        return [*inputs, gr.Checkbox(label="Use text inputs instead of dropdowns", value=False)]

    def run(self, p, *args):
        """The first nine arguments are the axes', the last one says where their values come from."""

        def axis(index, text, chosen):
            option = axis_options[index or 0]
            if option.label == "Nothing":
                return option, [0]
            given = chosen if option.choices is not None and not args[-1] else split(text)
            if option.type in (int, float):
                given = [number for value in given for number in expand(option.type, value)]
            values = [option.type(value) for value in given]
            if option.confirm:
                option.confirm(p, values)
            return option, values

        (x_opt, xs), (y_opt, ys), (z_opt, zs) = axis(*args[:3]), axis(*args[3:6]), axis(*args[6:9])
        images, infotexts = [], []
        for z, y, x in product(zs, ys, xs):
            if shared.state.interrupted:
                break
            pc = copy(p)
            for option, value, values in ((x_opt, x, xs), (y_opt, y, ys), (z_opt, z, zs)):
                option.apply(pc, value, values)
            res = process_images(pc)
            images += res.images
            infotexts += res.infotexts
        return Processed(p, images, p.seed, infotexts=infotexts)
