"""The list of samplers, and the names by which they are asked for."""

from __future__ import annotations

from modules import sd_samplers_kdiffusion, sd_samplers_timesteps, sd_schedulers

all_samplers = [*sd_samplers_kdiffusion.samplers_data_k_diffusion, *sd_samplers_timesteps.samplers_data_timesteps]
all_samplers_map = {x.name: x for x in all_samplers}


def create_sampler(name: str | None, model):
    config = all_samplers[0] if name is None else all_samplers_map[name]
    sampler = config.constructor(model)
    sampler.config = config
    return sampler


def visible_sampler_names() -> list[str]:
    return [x.name for x in all_samplers]


def get_sampler_and_scheduler(sampler_name, scheduler_name, *, convert_automatic: bool = True) -> tuple[str, str]:
    """Valid names for those asked for; unknown: the first sampler, no scheduler. The host also splits old names."""
    sampler = all_samplers_map.get(sampler_name, all_samplers[0])
    return sampler.name, sd_schedulers.schedulers_map.get(scheduler_name, sd_schedulers.schedulers[0]).label
