"""What comes out of a job: `Processed`, and the infotext under each image."""

from __future__ import annotations

import json

from modules import errors, shared
from modules.shared import opts

VERSION = "v1.10.1"


class Processed:
    JS = (
        "negative_prompt",
        "seed",
        "subseed",
        "subseed_strength",
        "width",
        "height",
        "sampler_name",
        "cfg_scale",
        "steps",
        "batch_size",
        "restore_faces",
        "sd_model_name",
        "sd_model_hash",
        "sd_vae_name",
        "sd_vae_hash",
        "seed_resize_from_w",
        "seed_resize_from_h",
        "denoising_strength",
        "extra_generation_params",
        "styles",
        "is_using_inpainting_conditioning",
    )

    def __init__(
        self,
        p,
        images_list,
        seed=-1,
        info="",
        subseed=None,
        all_prompts=None,
        all_negative_prompts=None,
        all_seeds=None,
        all_subseeds=None,
        index_of_first_image=0,
        infotexts=None,
        comments="",
    ):
        for name in self.JS:
            setattr(self, name, getattr(p, name, None))
        self.images, self.info, self.index_of_first_image = images_list, info, index_of_first_image
        self.prompt = p.prompt[0] if isinstance(p.prompt, list) else p.prompt
        self.seed = int(seed) if seed is not None else -1
        self.subseed = int(subseed) if subseed is not None else -1
        self.comments = "".join(f"{comment}\n" for comment in p.comments)
        self.all_prompts = all_prompts or p.all_prompts or [self.prompt]
        self.all_negative_prompts = all_negative_prompts or p.all_negative_prompts or [p.negative_prompt]
        self.all_seeds, self.all_subseeds = (
            all_seeds or p.all_seeds or [seed],
            all_subseeds or p.all_subseeds or [subseed],
        )
        self.infotexts = infotexts or [info] * len(images_list)
        self.job_timestamp = shared.state.job_timestamp
        self.clip_skip, self.version, self.face_restoration_model = opts.CLIP_stop_at_last_layers, VERSION, None

    def js(self) -> str:
        """The `info` of an API answer."""
        names = (
            "all_prompts",
            *self.JS,
            "all_negative_prompts",
            "all_seeds",
            "all_subseeds",
            "face_restoration_model",
            "index_of_first_image",
            "infotexts",
            "job_timestamp",
            "clip_skip",
            "version",
        )
        return json.dumps(
            {"prompt": self.all_prompts[0]} | {name: getattr(self, name) for name in names}, default=lambda o: None
        )

    def infotext(self, p, index: int) -> str:
        return create_infotext(
            p,
            self.all_prompts,
            self.all_seeds,
            self.all_subseeds,
            comments=[],
            position_in_batch=index % p.batch_size,
            iteration=index // p.batch_size,
        )


def create_infotext(
    p,
    all_prompts,
    all_seeds,
    all_subseeds,
    comments=None,
    iteration=0,
    position_in_batch=0,
    use_main_prompt=False,
    index=None,
    all_negative_prompts=None,
) -> str:
    """Prompts and a line of settings. An extra parameter may be a list (one value per image) or a function."""
    from modules.infotext_utils import quote

    index = 0 if use_main_prompt else position_in_batch + iteration * p.batch_size if index is None else index
    negative_prompt = (
        p.main_negative_prompt if use_main_prompt else (all_negative_prompts or p.all_negative_prompts)[index]
    )
    prompt_text = p.main_prompt if use_main_prompt else all_prompts[index]
    strength = p.subseed_strength
    params = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler,
        "CFG scale": p.cfg_scale,
        "Seed": p.all_seeds[0] if use_main_prompt else all_seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model hash": p.sd_model_hash if opts.add_model_hash_to_info else None,
        "Model": p.sd_model_name if opts.add_model_name_to_info else None,
        "Variation seed": all_subseeds[index] if strength else None,
        "Variation seed strength": strength or None,
        "Denoising strength": p.extra_generation_params.get("Denoising strength"),
        "Clip skip": opts.CLIP_stop_at_last_layers if opts.CLIP_stop_at_last_layers > 1 else None,
        "Tiling": "True" if p.tiling else None,
        **p.extra_generation_params,
        "Version": VERSION if opts.add_version_to_infotext else None,
    }
    for key, value in params.items():
        try:
            if isinstance(value, list):
                params[key] = value[index]
            elif callable(value):
                params[key] = value(
                    p=p,
                    index=index,
                    prompt_text=prompt_text,
                    negative_prompt=negative_prompt,
                    all_prompts=all_prompts,
                    all_seeds=all_seeds,
                    all_subseeds=all_subseeds,
                )
        except Exception:
            errors.report(f"infotext parameter {key!r} failed", exc_info=True)
            params[key] = None
    given = {key: value for key, value in params.items() if value is not None}
    lines = [prompt_text, f"Negative prompt: {negative_prompt}"] if negative_prompt else [prompt_text]
    lines.append(", ".join(str(key) if key == value else f"{key}: {quote(value)}" for key, value in given.items()))
    return "\n".join(lines).strip()
