"""The loop that runs a job. The order of the hooks is the point of this file."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from modules import paths, rng, sd_models, sd_samplers, shared
from modules.processing_img2img import StableDiffusionProcessingImg2Img  # noqa: F401
from modules.processing_job import DecodedSamples, StableDiffusionProcessing, decode_latent_batch, opt_C, opt_f  # noqa: F401
from modules.processing_results import Processed, create_infotext
from modules.processing_txt2img import StableDiffusionProcessingTxt2Img  # noqa: F401
from modules.shared import opts, state


def get_fixed_seed(seed) -> int:
    try:
        seed = int(seed)
    except (TypeError, ValueError):
        seed = -1
    return random.randrange(4294967294) if seed == -1 else seed


def fix_seed(p) -> None:
    p.seed, p.subseed = get_fixed_seed(p.seed), get_fixed_seed(p.subseed)


def process_images(p: StableDiffusionProcessing) -> Processed:
    """Run a job. Overridden settings are put back at the end; an overridden checkpoint stays until the next job."""
    if p.scripts is not None:
        p.scripts.before_process(p)
    stored = {k: opts.data[k] for k in p.override_settings if k in opts.data}
    try:
        if sd_models.checkpoint_aliases.get(p.override_settings.get("sd_model_checkpoint")) is None:
            p.override_settings.pop("sd_model_checkpoint", None)
            sd_models.reload_model_weights()
        for key, value in p.override_settings.items():
            opts.set(key, value, is_api=True, run_callbacks=False)
            if key == "sd_model_checkpoint":
                sd_models.reload_model_weights()
        sd_samplers.fix_p_invalid_sampler_and_scheduler(p)
        return process_images_inner(p)
    finally:
        if p.override_settings_restore_afterwards:
            for key, value in stored.items():
                setattr(opts, key, value)


def apply_circular(enable: bool) -> None:
    """Tiling: every convolution of the model pads in circles."""
    for module in shared.sd_model.modules():
        if type(module) is torch.nn.Conv2d:
            module.padding_mode = "circular" if enable else "zeros"


def process_images_inner(p: StableDiffusionProcessing) -> Processed:
    seed, subseed = get_fixed_seed(p.seed), get_fixed_seed(p.subseed)
    if p.refiner_checkpoint not in (None, "", "None", "none"):
        p.refiner_checkpoint_info = sd_models.get_closet_checkpoint_match(p.refiner_checkpoint)
        if p.refiner_checkpoint_info is None:
            raise Exception(f"no checkpoint {p.refiner_checkpoint!r}")
    p.sd_model_name, p.sd_model_hash = p.sd_model.sd_checkpoint_info.name, p.sd_model.sd_model_hash
    apply_circular(bool(p.tiling))
    p.setup_prompts()
    p.all_seeds = [seed + (i if p.subseed_strength == 0 else 0) for i in range(len(p.all_prompts))]
    p.all_subseeds = [subseed + i for i in range(len(p.all_prompts))]
    if p.scripts is not None:
        p.scripts.process(p)

    infotexts, output_images = [], []
    with torch.no_grad():
        p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
        if state.job_count == -1:
            state.job_count = p.n_iter
        for n in range(p.n_iter):
            p.iteration = n
            state.skipped = False
            if state.interrupted:
                break
            sd_models.reload_model_weights()  # the refiner may have left another one
            _take_batch(p, n)
            p.subseeds, p.seeds = _batch(p, p.all_subseeds, n), _batch(p, p.all_seeds, n)
            p.rng = rng.ImageRNG(
                (opt_C, p.height // opt_f, p.width // opt_f),
                p.seeds,
                subseeds=p.subseeds,
                subseed_strength=p.subseed_strength,
            )
            which = dict(batch_number=n, prompts=p.prompts, seeds=p.seeds, subseeds=p.subseeds)
            if p.scripts is not None:
                p.scripts.before_process_batch(p, **which)
            if len(p.prompts) == 0:
                break
            p.parse_extra_network_prompts()
            p.activate_extra_networks()
            if p.scripts is not None:
                p.scripts.process_batch(p, **which | {"prompts": p.prompts})
            p.setup_conds()
            if n == 0:
                infotext = create_infotext(p, p.all_prompts, p.all_seeds)
                Path(paths.data_path, "params.txt").write_text(infotext, encoding="utf8")
            if p.n_iter > 1:
                state.job = f"Batch {n + 1} out of {p.n_iter}"

            samples = p.sample(
                conditioning=p.c,
                unconditional_conditioning=p.uc,
                seeds=p.seeds,
                subseeds=p.subseeds,
                subseed_strength=p.subseed_strength,
                prompts=p.prompts,
            )
            if p.scripts is not None:
                taken = SimpleNamespace(samples=samples)
                p.scripts.post_sample(p, taken)
                samples = taken.samples
            if not getattr(samples, "already_decoded", False):
                samples = decode_latent_batch(p.sd_model, samples)
            batch = ((torch.stack(samples).float() + 1) / 2).clamp(0, 1)
            state.nextjob()
            if p.scripts is not None:
                p.scripts.postprocess_batch(p, batch, batch_number=n)
                _take_batch(p, n)
                listed = SimpleNamespace(images=list(batch))
                p.scripts.postprocess_batch_list(p, listed, batch_number=n)
                batch = listed.images
            for i, x in enumerate(batch):
                p.batch_index = i
                image = _postprocess_image(
                    p, i, Image.fromarray((255 * x.permute(1, 2, 0).cpu().numpy()).astype(np.uint8))
                )
                infotexts.append(create_infotext(p, p.prompts, p.seeds, p.subseeds, i, p.negative_prompts))
                image.info["parameters"] = infotexts[-1]
                output_images.append(image)
    infotexts = infotexts or [create_infotext(p, p.all_prompts, p.all_seeds)]
    result = Processed(p, output_images, p.all_seeds[0], infotexts[0], infotexts=infotexts)
    if p.scripts is not None:
        p.scripts.postprocess(p, result)
    return result


def _batch(p, values: list, n: int) -> list:
    return values[n * p.batch_size : (n + 1) * p.batch_size]


def _take_batch(p, n: int) -> None:
    p.prompts, p.negative_prompts = _batch(p, p.all_prompts, n), _batch(p, p.all_negative_prompts, n)


def _postprocess_image(p, i: int, image: Image.Image) -> Image.Image:
    """The three hooks on a finished image."""
    if p.scripts is None:
        return image
    finished = SimpleNamespace(image=image)
    p.scripts.postprocess_image(p, finished)
    p.scripts.postprocess_maskoverlay(p, SimpleNamespace(index=i, mask_for_overlay=None, overlay_image=None))
    p.scripts.postprocess_image_after_composite(p, finished)
    return finished.image
