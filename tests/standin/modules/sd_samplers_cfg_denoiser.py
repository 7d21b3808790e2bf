"""Classifier-free guidance: one evaluation of the sampler = one or more calls of the UNet."""

from __future__ import annotations

import torch

from modules import prompt_parser, script_callbacks, sd_samplers_common, shared
from modules.shared import opts, state


def _map(function, *conds):
    """Apply `function` to tensors, or key by key to dicts of tensors (SDXL)."""
    if isinstance(conds[0], dict):
        return prompt_parser.DictWithShape({key: function(*(c[key] for c in conds)) for key in conds[0]})
    return function(*conds)


class CFGDenoiser(torch.nn.Module):
    def __init__(self, sampler):
        super().__init__()
        self.model_wrap = self.p = None
        self.sampler = sampler
        self.steps: int | None = None  # of this pass
        self.total_steps: int | None = None  # evaluations expected
        self.step = 0  # evaluations done

    @property
    def inner_model(self):
        """The loaded model as the sampling function sees it."""
        self.model_wrap = self.model_wrap or self.wrap()
        return self.model_wrap

    def get_pred_x0(self, x_in, x_out, sigma):
        return x_out

    def update_inner_model(self) -> None:
        """The checkpoint changed: forget the wrapped model and take the conditioning made with the new one."""
        self.model_wrap = None
        c, uc = self.p.get_conds()
        self.sampler.sampler_extra_args |= {"cond": c, "uncond": uc}

    def _pad(self, tensor, uncond):
        """Lengthen the shorter of cond and uncond with the empty prompt's vectors."""
        empty = shared.sd_model.cond_stage_model_empty_prompt
        missing = (tensor.shape[1] - uncond.shape[1]) // empty.shape[1]

        def longer(c, n):
            return _map(lambda t: torch.cat([t, empty.repeat(t.shape[0], n, 1)], 1) if t.ndim == 3 else t, c)

        return (longer(tensor, -missing), uncond) if missing < 0 else (tensor, longer(uncond, missing))

    def combine_denoised(self, x_out, conds_list, uncond, cond_scale):
        """Guidance: from the unconditional rows (the last ones) towards each image's conditions by their weights."""
        base = x_out[-uncond.shape[0] :]
        denoised = base.clone()
        for i, parts in enumerate(conds_list):
            for index, weight in parts:
                denoised[i] += (x_out[index] - base[i]) * (weight * cond_scale)
        return denoised

    def forward(self, x, sigma, uncond, cond, cond_scale, s_min_uncond, image_cond):
        if state.interrupted or state.skipped:
            raise sd_samplers_common.InterruptedException
        if sd_samplers_common.apply_refiner(self, sigma):
            cond, uncond = self.sampler.sampler_extra_args["cond"], self.sampler.sampler_extra_args["uncond"]
        conds_list, tensor = prompt_parser.reconstruct_multicond_batch(cond, self.step)
        uncond = prompt_parser.reconstruct_cond_batch(uncond, self.step)

        images = len(conds_list)
        owner = [i for i, parts in enumerate(conds_list) for _ in parts] + list(range(images))  # image of each row
        steps = state.sampling_step, state.sampling_steps
        params = script_callbacks.CFGDenoiserParams(
            x[owner], image_cond[owner], sigma[owner], *steps, tensor, uncond, self
        )
        script_callbacks.cfg_denoiser_callback(params)
        x_in, image_in, sigma_in = params.x, params.image_cond, params.sigma
        tensor, uncond = params.text_cond, params.text_uncond

        skip_uncond = opts.skip_early_cond != 0 and self.step / self.total_steps <= opts.skip_early_cond
        due = self.step % 2 or opts.s_min_uncond_all
        if not skip_uncond and due and s_min_uncond > 0 and sigma[0] < s_min_uncond:
            skip_uncond = True
            self.p.extra_generation_params["NGMS"] = s_min_uncond
            if opts.s_min_uncond_all:
                self.p.extra_generation_params["NGMS all steps"] = True
        if skip_uncond:
            x_in, sigma_in = x_in[:-images], sigma_in[:-images]
        if opts.pad_cond_uncond and tensor.shape[1] != uncond.shape[1]:
            tensor, uncond = self._pad(tensor, uncond)

        def model(rows: slice, c):
            c = c if isinstance(c, dict) else {"c_crossattn": [c]}
            return self.inner_model(x_in[rows], sigma_in[rows], cond={**c, "c_concat": [image_in[rows]]})

        def in_parts(c, size: int, offset: int = 0):
            """Rows of `c` in groups of `size`, whose x starts at row `offset`."""
            parts = [slice(a, min(a + size, c.shape[0])) for a in range(0, c.shape[0], size)]
            return [
                model(slice(offset + part.start, offset + part.stop), _map(lambda t: t[part], c))  # noqa: B023
                for part in parts
            ]

        if skip_uncond or tensor.shape[1] == uncond.shape[1]:
            both = tensor if skip_uncond else _map(lambda a, b: torch.cat([a, b]), tensor, uncond)
            x_out = torch.cat(in_parts(both, both.shape[0] if opts.batch_cond_uncond else images))
        else:  # unequal lengths cannot share a call
            parts = in_parts(tensor, images * 2 if opts.batch_cond_uncond else images)
            x_out = torch.cat(parts + in_parts(uncond, uncond.shape[0], offset=tensor.shape[0]))
        first = [parts[0][0] for parts in conds_list]
        if skip_uncond:
            x_out = torch.cat([x_out, x_out[first]])
        script_callbacks.cfg_denoised_callback(script_callbacks.CFGDenoisedParams(x_out, *steps, self.inner_model))

        denoised = self.combine_denoised(x_out, conds_list, uncond, 1.0 if skip_uncond else cond_scale)
        self.sampler.last_latent = self.get_pred_x0(x_in[first], x_out[first], sigma)

        after = script_callbacks.AfterCFGCallbackParams(denoised, *steps)
        script_callbacks.cfg_after_cfg_callback(after)
        self.step += 1
        return after.x
