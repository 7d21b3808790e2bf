"""Prompts to conditioning: `AND` with weights. No prompt editing, attention weights or extra networks.

Shapes as on the host: one conditioning is `[77 * chunks, C]` (SDXL: a dict with `crossattn` and `vector [V]`).
"""

from __future__ import annotations

import re
from collections import namedtuple
from typing import Any

import torch

ScheduledPromptConditioning = namedtuple("ScheduledPromptConditioning", ["end_at_step", "cond"])
ComposableScheduledPromptConditioning = namedtuple("ComposableScheduledPromptConditioning", ["schedules", "weight"])
MulticondLearnedConditioning = namedtuple("MulticondLearnedConditioning", ["shape", "batch"])
RE_WEIGHT = re.compile(r"^(.*?)(?:\s*:\s*([-+]?(?:\d+\.?\d*|\.\d+)))?\s*$", re.S)


class SdConditioning(list):
    """Prompts, with the image size they are for."""

    def __init__(self, prompts, is_negative_prompt=False, width=None, height=None):
        super().__init__(prompts)
        self.is_negative_prompt, self.width, self.height = is_negative_prompt, width, height


class DictWithShape(dict):
    @property
    def shape(self):
        return self["crossattn"].shape


def get_learned_conditioning(model, prompts, steps, *_) -> list[list[ScheduledPromptConditioning]]:
    """One schedule (of one entry) per prompt; each prompt keeps its own length."""

    def one(prompt):
        cond = model.get_learned_conditioning(SdConditioning([prompt]))
        return {k: v[0] for k, v in cond.items()} if isinstance(cond, dict) else cond[0]

    return [[ScheduledPromptConditioning(steps, one(prompt))] for prompt in prompts]


def get_multicond_learned_conditioning(model, prompts, steps, *_) -> MulticondLearnedConditioning:
    batch = []
    for prompt in prompts:
        parts = [RE_WEIGHT.match(part).groups() for part in re.split(r"\bAND\b", prompt)]
        schedules = get_learned_conditioning(model, SdConditioning([text for text, _ in parts]), steps)
        batch.append([ComposableScheduledPromptConditioning(s, float(w or 1)) for s, (_, w) in zip(schedules, parts)])
    return MulticondLearnedConditioning((len(prompts),), batch)


def stack(conds: list[Any]) -> Any:
    """Stack conditionings to `[N, L, C]`; shorter ones repeat their last vector."""
    if isinstance(conds[0], dict):
        return DictWithShape({key: stack([c[key] for c in conds]) for key in conds[0]})
    if conds[0].ndim == 1:
        return torch.stack(conds)
    length = max(c.shape[0] for c in conds)
    return torch.stack([torch.cat([c, c[-1:].expand(length - c.shape[0], -1)]) for c in conds])


def reconstruct_cond_batch(c, current_step: int) -> Any:
    return stack([schedule[0].cond for schedule in c])


def reconstruct_multicond_batch(c: MulticondLearnedConditioning, current_step: int):
    """Per image its (index, weight) pairs, and all conditionings stacked."""
    conds_list, flat = [], []
    for parts in c.batch:
        conds_list.append([(len(flat) + i, part.weight) for i, part in enumerate(parts)])
        flat += [part.schedules[0].cond for part in parts]
    return conds_list, stack(flat)
