"""The schedule that a pass will run: the host is asked with a sampler made for the question, before there is a pass.

Questions come while a picture is being made. So the host calculates with copies of the model's noise levels on the CPU,
made once, as whatever is read from a graphics card waits for all that it has been given to do; and an answer is kept.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from modules import sd_models, sd_samplers, shared

from ..core import NoiseLevels, Schedule
from .guiding import SamplerKind
from .model import noise_source
from .schedules import can_be_cut, noise_levels, pass_schedule

SAMPLER = "Euler"
"""What the host's API takes where a payload names no sampling method."""

MOST_ANSWERS = 100
"""How many are kept of a model; what a slider is moved through needs no more."""


@dataclass(frozen=True)
class Asked:
    """What the host says of a pass.

    Attributes:
        schedule: Its noise levels.
        sampler: What is to be known of its sampler.
        can_be_cut: Whether it can be cut short.
    """

    schedule: Schedule
    sampler: SamplerKind
    can_be_cut: bool


class Asking:
    """Questions about one pass of a job.

    Args:
        job: The job as it is in that pass; stays as it is.
    """

    def __init__(self, job: Any) -> None:
        self._job = job
        self._sampler: Any = None
        self._levels: NoiseLevels | None = None

    def __call__(self, steps: int, last_step: int | None = None) -> Asked:
        """The pass with so many steps.

        Args:
            steps: Steps of the whole schedule.
            last_step: The step counted from the end at which a pass over a picture begins, as `setup_img2img_steps`
                gives it; None for a pass from noise alone.

        Raises:
            NothingSampled: if it makes no step.
            Exception: if the host cannot tell it.
        """
        job = self._job
        if job.sd_model is None or job.sd_model is not sd_models.model_data.sd_model:
            raise LookupError("samplers are made for the model in use, and load one if there is none")
        # A name that the host does not know is what the host makes of it.
        name = job.sampler_name or SAMPLER
        names = sd_samplers.get_sampler_and_scheduler(name, job.scheduler, convert_automatic=False)
        churn = tuple(_churn(job).items())
        question = (*names, steps, last_step, job.is_hr_pass, churn, repr(shared.opts.data))
        answers = _answers_of(job.sd_model)
        if question not in answers:
            if len(answers) >= MOST_ANSWERS:
                answers.clear()
            with _OnCPU():
                answers[question] = self._ask(*names, steps, last_step)
        return answers[question]

    def _ask(self, name: str | None, scheduler: str | None, steps: int, last_step: int | None) -> Asked:
        if self._sampler is None:
            self._sampler = _sampler(name, self._job.sd_model)
        sampler, job = self._sampler, copy.copy(self._job)
        job.scheduler = job.hr_scheduler = scheduler
        job.extra_generation_params = {}  # the host notes there what it does
        evaluated = steps if last_step is None else last_step + 1  # as the hosts count both
        denoiser = sampler.model_wrap_cfg
        denoiser.steps, denoiser.total_steps = evaluated, sampler.config.total_steps(evaluated)
        kind = SamplerKind.of(sampler)
        if kind.over_noise:
            timesteps = sampler.get_timesteps(job, steps)[:last_step]
            given = {"timesteps": timesteps, "is_img2img": last_step is not None}
            return Asked(pass_schedule(sampler, given), kind, can_be_cut(sampler, given))
        sigmas = sampler.get_sigmas(job, steps)
        if last_step is None:
            ends, n = (sampler.model_wrap.sigmas[-1], sampler.model_wrap.sigmas[0]), steps
        else:
            sigmas = sigmas[steps - last_step - 1 :]
            ends, n = (sigmas[0], sigmas[-2]), len(sigmas) - 1
        self._levels = self._levels or noise_levels(sampler)
        given = {"sigmas": sigmas, "sigma_sched": sigmas, "n": n, "sigma_max": ends[0], "sigma_min": ends[1]}
        taken = inspect.signature(sampler.func).parameters
        given = {name: value for name, value in (given | _churn(job)).items() if name in taken}
        return Asked(pass_schedule(sampler, given, self._levels), kind, can_be_cut(sampler, given))


def _sampler(name: str | None, model: Any) -> Any:
    """A sampler made for a question. On Forge that puts other noise levels on the model, which a pass may be using."""
    noise = getattr(model, "alphas_cumprod", None)
    sampler = sd_samplers.create_sampler(name, model)
    if noise is not None and model.alphas_cumprod is not noise:
        model.alphas_cumprod = noise
    return sampler


def _churn(job: Any) -> dict[str, float]:
    """The noise that some samplers add: the owner's setting if there is one, otherwise the job's own."""
    names = ("s_churn", "s_tmin", "s_tmax")
    values = {name: getattr(shared.opts, name, 0) or getattr(job, name, 0) or 0 for name in names}
    return {**values, "s_tmax": values["s_tmax"] or float("inf")}


_answers: WeakKeyDictionary[Any, tuple[torch.Tensor | None, dict[Any, Asked]]] = WeakKeyDictionary()
"""Of a model with its noise levels: what has been answered."""


def _answers_of(model: Any) -> dict[Any, Asked]:
    """What has been answered for a model with the noise levels that it has now."""
    levels = noise_source(model)
    known = _answers.get(model)
    if known is None or known[0] is not levels:
        known = _answers[model] = levels, {}
    return known[1]


def keep_noise_levels(model: Any) -> None:
    """Copies a model's noise levels, so that a question does not wait for them later on."""
    levels = noise_source(model)
    if levels is not None:
        _on_cpu(levels)


class _OnCPU(TorchFunctionMode):
    """While open, this thread calculates on the CPU, with copies of what is elsewhere."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = {name: _on_cpu(value) for name, value in (kwargs or {}).items()}
        if "device" in named:
            named["device"] = "cpu"
        return func(*_on_cpu(args), **named)


_copies: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Tensors and their copies on the CPU."""


def _on_cpu(value: Any) -> Any:
    """A value with copies on the CPU in place of other tensors; each is copied once."""
    if type(value) in (list, tuple):
        return type(value)(_on_cpu(item) for item in value)
    if not isinstance(value, torch.Tensor) or value.is_cpu:
        return value
    if value not in _copies:
        _copies[value] = copied(value)
    return _copies[value]


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU: waits for the device."""
    return tensor.detach().cpu()
