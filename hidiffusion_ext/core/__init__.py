"""The embedded core: torch, einops and the standard library, usable from any Python program.

unet_map = map_unet(unet)
plan = make_plan(Options(enabled=True), unet_map, latent=(128, 128))
with hidiffusion(unet, plan, Run(Schedule(timesteps))):
    ...sample as always...
"""

from .apply import hidiffusion
from .done import Done
from .evaluation import Change, Evaluation
from .options import Method, OptionError, Options, Passes, Preset, Refused, WindowShift
from .parts.part import Need, Part
from .plan import Conflict, LeftOut, Plan, Situation
from .planning import make_plan
from .run import Run
from .schedule import NoiseLevels, Schedule, Span
from .unet_map import Family, UNetMap, UnsupportedUNet, map_unet

__all__ = [
    "Change",
    "Conflict",
    "Done",
    "Evaluation",
    "Family",
    "LeftOut",
    "Method",
    "Need",
    "NoiseLevels",
    "OptionError",
    "Options",
    "Part",
    "Passes",
    "Plan",
    "Preset",
    "Refused",
    "Run",
    "Schedule",
    "Situation",
    "Span",
    "UNetMap",
    "UnsupportedUNet",
    "WindowShift",
    "hidiffusion",
    "make_plan",
    "map_unet",
]
