"""The loop that runs a job, and what comes of it. The order of the hooks is the point of this file."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path
from threading import Lock

import torch

from modules import errors, paths, rng, sd_models, sd_samplers
from modules.infotext_utils import quote
from modules.processing_job import (  # noqa: F401
    StableDiffusionProcessing,
    StableDiffusionProcessingImg2Img,
    StableDiffusionProcessingTxt2Img,
    decode_latent_batch,
    opt_C,
    opt_f,
    to_image,
)
from modules.shared import opts, state

queue_lock = Lock()


class Processed:
    """A finished job's pictures and what is known of them; of its many fields those that somebody here asks for."""

    OF_THE_JOB = ("all_seeds", "width", "height", "extra_generation_params", "sd_model_name")

    def __init__(self, p, images_list, seed=-1, info="", *, infotexts):
        self.images, self.seed, self.info, self.infotexts = images_list, seed, info, infotexts
        for name in self.OF_THE_JOB:
            setattr(self, name, getattr(p, name))

    def js(self) -> str:
        """The `info` of an API answer."""
        return json.dumps({k: v for k, v in vars(self).items() if k != "images"}, default=lambda o: None)


def create_infotext(p, all_prompts, all_seeds, all_subseeds=None, index=0, all_negative_prompts=None) -> str:
    """Prompts and a line of settings. An extra parameter may be a list (one value per image) or a function."""
    prompt_text, negative_prompt = all_prompts[index], (all_negative_prompts or p.all_negative_prompts)[index]
    params = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler,
        "CFG scale": p.cfg_scale,
        "Seed": all_seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model hash": p.sd_model_hash,
        "Model": p.sd_model_name,
        "Denoising strength": p.extra_generation_params.get("Denoising strength"),
        **p.extra_generation_params,
        "Version": "v1.10.1",
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


def run_job(
    kind: type[StableDiffusionProcessing],
    fields: dict,
    runner,
    script_args,
) -> Processed:
    """Make a job of the API or the page and run it, by the script chosen in the page's dropdown if there is one."""
    with queue_lock, closing(kind(**fields)) as p:
        p.scripts = runner
        state.begin(job="a job")
        try:
            p.script_args = script_args
            return runner.run(p, *script_args) or process_images(p)
        finally:
            state.end()


def process_images(p: StableDiffusionProcessing) -> Processed:
    """Run a job. Overridden settings are put back at the end; an overridden checkpoint stays until the next job."""
    p.scripts.before_process(p)
    stored = {k: opts.data[k] for k in p.override_settings if k in opts.data}
    try:
        for key, value in p.override_settings.items():
            opts.set(key, value)
        sd_models.reload_model_weights()
        asked = p.sampler_name, p.scheduler
        p.sampler_name, p.scheduler = sd_samplers.get_sampler_and_scheduler(*asked, convert_automatic=False)
        return process_images_inner(p)
    finally:
        for key, value in stored.items():
            opts.set(key, value)


def process_images_inner(p: StableDiffusionProcessing) -> Processed:
    seed, subseed = (random.randrange(2**32) if one == -1 else int(one) for one in (p.seed, p.subseed))
    p.refiner_checkpoint_info = sd_models.get_closet_checkpoint_match(p.refiner_checkpoint)
    p.sd_model_name, p.sd_model_hash = p.sd_model.sd_checkpoint_info.name, p.sd_model.sd_model_hash
    p.setup_prompts()
    p.all_seeds, p.all_subseeds = ([first + i for i in range(len(p.all_prompts))] for first in (seed, subseed))
    p.scripts.process(p)

    infotexts, output_images = [], []
    with torch.no_grad():
        p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
        for n in range(p.n_iter):
            p.iteration = n
            state.skipped = False
            if state.interrupted:
                break
            sd_models.reload_model_weights()  # the refiner may have left another one
            for name in ("prompts", "negative_prompts", "seeds", "subseeds"):
                setattr(p, name, getattr(p, f"all_{name}")[n * p.batch_size : (n + 1) * p.batch_size])
            p.rng = rng.ImageRNG((opt_C, p.height // opt_f, p.width // opt_f), p.seeds)
            which = dict(batch_number=n, prompts=p.prompts, seeds=p.seeds, subseeds=p.subseeds)
            p.scripts.before_process_batch(p, **which)
            p.scripts.process_batch(p, **which)
            p.setup_conds()
            if n == 0:
                infotext = create_infotext(p, p.all_prompts, p.all_seeds)
                Path(paths.data_path, "params.txt").write_text(infotext, encoding="utf8")
            conds = dict(conditioning=p.c, unconditional_conditioning=p.uc)
            seeds = dict(seeds=p.seeds, subseeds=p.subseeds, subseed_strength=p.subseed_strength)
            samples = p.sample(**conds, **seeds, prompts=p.prompts)
            if isinstance(samples, torch.Tensor):
                samples = decode_latent_batch(p.sd_model, samples)
            batch = ((torch.stack(samples).float() + 1) / 2).clamp(0, 1)
            p.scripts.postprocess_batch(p, images=batch, batch_number=n)
            for i, x in enumerate(batch):
                p.batch_index = i
                infotexts.append(create_infotext(p, p.prompts, p.seeds, p.subseeds, i, p.negative_prompts))
                output_images.append(to_image(x * 2 - 1))
    infotexts = infotexts or [create_infotext(p, p.all_prompts, p.all_seeds)]
    result = Processed(p, output_images, p.all_seeds[0], infotexts[0], infotexts=infotexts)
    p.scripts.postprocess(p, result)
    return result
