"""The list of samplers, and the names by which they are asked for."""

from __future__ import annotations

import logging

from modules import sd_samplers_kdiffusion, sd_samplers_timesteps, sd_schedulers
from modules.sd_samplers_common import SamplerData

all_samplers = [*sd_samplers_kdiffusion.samplers_data_k_diffusion, *sd_samplers_timesteps.samplers_data_timesteps]
all_samplers_map = {x.name: x for x in all_samplers}
samplers = samplers_for_img2img = all_samplers
samplers_map = {alias.lower(): x.name for x in all_samplers for alias in (x.name, *x.aliases)}


def find_sampler_config(name: str | None) -> SamplerData | None:
    return all_samplers[0] if name is None else all_samplers_map.get(name)


def create_sampler(name: str | None, model):
    config = find_sampler_config(name)
    assert config is not None, f"no sampler {name!r}"
    sampler = config.constructor(model)
    sampler.config = config
    return sampler


def visible_sampler_names() -> list[str]:
    return [x.name for x in samplers]


def get_sampler_and_scheduler(sampler_name, scheduler_name, *, convert_automatic: bool = True) -> tuple[str, str]:
    """Valid names for those asked for; an old name like "DPM++ 2M Karras" is split. Unknown: the first sampler."""
    name = sampler_name or samplers[0].name
    found = sd_schedulers.schedulers_map.get(scheduler_name, sd_schedulers.schedulers[0])
    for scheduler in sd_schedulers.schedulers:
        for ending in (scheduler.label, scheduler.name, *scheduler.aliases):
            if name.endswith(f" {ending}"):
                found, name = scheduler, name[: -len(ending) - 1]
                break
    sampler = all_samplers_map.get(name, samplers[0])
    if convert_automatic and sampler.options.get("scheduler") == found.name:
        found = sd_schedulers.schedulers[0]
    return sampler.name, found.label


def fix_p_invalid_sampler_and_scheduler(p) -> None:
    asked = p.sampler_name, p.scheduler
    p.sampler_name, p.scheduler = get_sampler_and_scheduler(*asked, convert_automatic=False)
    if asked != (p.sampler_name, p.scheduler):
        logging.debug("sampler and scheduler %s became %s", asked, (p.sampler_name, p.scheduler))
