"""The embedded core: torch, einops and the standard library, usable from any Python program.

unet_map = map_unet(unet)
plan = make_plan(Options(enabled=True), unet_map, latent=(128, 128))
with hidiffusion(unet, plan, Run(Schedule(timesteps))):
    ...sample as always...
"""

from .anchor import anchored
from .apply import Run, hidiffusion
from .damped_guidance import damped
from .done import Done, Work
from .evaluation import Change, Evaluation
from .options import Method, OptionError, Options, Passes, Preset, Refused, WindowShift
from .plan import Plan, Situation
from .planning import make_plan
from .schedule import NoiseLevels, Schedule, Span
from .split_guidance import split_guidance
from .unet_map import Family, UNetMap, UnsupportedUNet, map_unet

__all__ = [
    "Change",
    "Done",
    "Evaluation",
    "Family",
    "Method",
    "NoiseLevels",
    "OptionError",
    "Options",
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
    "Work",
    "anchored",
    "damped",
    "hidiffusion",
    "make_plan",
    "map_unet",
    "split_guidance",
]
