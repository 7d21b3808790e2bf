"""What comes out of a job: `Processed`, and the infotext under each image."""

from __future__ import annotations

import json

from modules import errors
from modules.shared import opts

VERSION = "v1.10.1"


class Processed:
    """A finished job's pictures and what is known of them; of its many fields those that somebody here asks for."""

    OF_THE_JOB = ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds", "width", "height", "steps")
    OF_THE_JOB += ("sampler_name", "cfg_scale", "denoising_strength", "extra_generation_params")
    OF_THE_JOB += ("sd_model_name", "sd_model_hash")

    def __init__(self, p, images_list, seed=-1, info="", *, infotexts=None):
        self.images, self.seed, self.info = images_list, seed, info
        self.infotexts = infotexts or [info] * len(images_list)
        for name in self.OF_THE_JOB:
            setattr(self, name, getattr(p, name))

    def js(self) -> str:
        """The `info` of an API answer."""
        names = (*self.OF_THE_JOB, "seed", "infotexts")
        return json.dumps({name: getattr(self, name) for name in names}, default=lambda o: None)


def create_infotext(p, all_prompts, all_seeds, all_subseeds=None, index=0, all_negative_prompts=None) -> str:
    """Prompts and a line of settings. An extra parameter may be a list (one value per image) or a function."""
    from modules.infotext_utils import quote

    prompt_text, negative_prompt = all_prompts[index], (all_negative_prompts or p.all_negative_prompts)[index]
    subseeds, strength, clip_skip = all_subseeds or p.all_subseeds, p.subseed_strength, opts.CLIP_stop_at_last_layers
    params = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler,
        "CFG scale": p.cfg_scale,
        "Seed": all_seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model hash": p.sd_model_hash,
        "Model": p.sd_model_name,
        "Variation seed": subseeds[index] if strength else None,
        "Variation seed strength": strength or None,
        "Denoising strength": p.extra_generation_params.get("Denoising strength"),
        "Clip skip": clip_skip if clip_skip > 1 else None,
        "Tiling": "True" if p.tiling else None,
        **p.extra_generation_params,
        "Version": VERSION,
    }
    for key, value in params.items():
        try:
            if isinstance(value, list):
                params[key] = value[index]
            elif callable(value):
                params[key] = value(p=p, index=index, prompt_text=prompt_text, negative_prompt=negative_prompt)
        except Exception:
            errors.report(f"infotext parameter {key!r} failed", exc_info=True)
            params[key] = None
    given = {key: value for key, value in params.items() if value is not None}
    lines = [prompt_text, f"Negative prompt: {negative_prompt}"] if negative_prompt else [prompt_text]
    lines.append(", ".join(str(key) if key == value else f"{key}: {quote(value)}" for key, value in given.items()))
    return "\n".join(lines).strip()
