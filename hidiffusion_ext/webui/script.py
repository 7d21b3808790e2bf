"""The AlwaysOn script: from the hooks of a job to the context around its sampling passes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from modules import scripts

from ..core import OptionError, Options, Plan, Run, Schedule, UnsupportedUNet, hidiffusion, make_plan, map_unet
from ..core.options import SETTINGS
from ..core.plan import CELL
from ..core.windows import Size
from ..hosts.guidance import damped_guidance
from ..hosts.model import Model, NoUNet, find_model
from ..hosts.sampling import around_next_pass
from . import infotext
from .log import logger
from .panel import build_panel


class HiDiffusionScript(scripts.Script):
    """HiDiffusion on txt2img and img2img."""

    def title(self) -> str:
        return "HiDiffusion"

    def show(self, is_img2img: bool) -> object:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        controls = build_panel(self.elem_id)
        self.infotext_fields = [(c, infotext.reader(setting)) for c, setting in zip(controls, SETTINGS.values())]
        self.paste_field_names = infotext.ALL_KEYS
        return controls

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Notes what is expected, for the settings file the host writes before sampling starts."""
        options = self._options(p, args)
        if options is None:
            return
        if getattr(p, "firstpass_image", None) is None:  # otherwise an existing picture goes straight to the hires pass
            self._plan(p, options, (p.height // CELL, p.width // CELL), hires=False)
        if getattr(p, "enable_hr", False):
            self._plan(p, options, (p.hr_upscale_to_y // CELL, p.hr_upscale_to_x // CELL), hires=True)

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Plans the pass that is about to start and opens the patched UNet around it."""
        options = self._options(p, args)
        if options is None:
            return
        hires = getattr(p, "is_hr_pass", False)
        if not hires:
            infotext.clear(p.extra_generation_params, hires=True)  # expected so far; true once it starts
        planned = self._plan(p, options, tuple(kwargs["x"].shape[-2:]), hires=hires)
        if planned is None:
            return
        model, plan = planned
        about = f"{plan.unet.family.value}, {plan.latent[1] * CELL}x{plan.latent[0] * CELL}"
        about += ", hires pass" if hires else ""
        if not plan.active:
            logger.info("%s: %s", about, plan.reason)
            return

        @contextmanager
        def patched(timesteps: list[float]) -> Generator[None, None, None]:
            schedule = Schedule(timesteps)
            active = plan.describe(schedule.steps)
            if active:
                infotext.write_active(p.extra_generation_params, options, active, hires=hires)
            else:
                infotext.clear(p.extra_generation_params, hires=hires)
                active = f"nothing: {schedule.steps} steps are too few for these thresholds"
            logger.info("%s, preset %s: %s", about, plan.preset.value, active)
            generator = torch.Generator().manual_seed(int(p.seeds[0]))
            run = Run(schedule, generator)
            guidance = damped_guidance(p.sampler, run) if plan.damped.steps(schedule.steps) else nullcontext()
            with hidiffusion(model.unet, plan, run), guidance:
                yield

        around_next_pass(p.sampler, patched, lambda error: self._refuse(p, f"unexpected: {error}", hires=hires))

    def _options(self, p: Any, args: tuple[Any, ...]) -> Options | None:
        """The job's options, or None if HiDiffusion is off or cannot be used as asked."""
        if args and args[0] is False:
            return None
        try:
            options = Options.from_args(args)
        except OptionError as error:
            self._refuse(p, str(error), hires=getattr(p, "is_hr_pass", False))
            return None
        return options if options.enabled else None

    def _plan(self, p: Any, options: Options, latent: Size, *, hires: bool) -> tuple[Model, Plan] | None:
        """The model and the plan of one pass, noted in the infotext; None if the model is refused."""
        try:
            model = find_model(p)
            unet_map = map_unet(model.unet)
        except (NoUNet, UnsupportedUNet) as error:
            self._refuse(p, str(error), hires=hires)
            return None
        plan = make_plan(options, unet_map, latent, model.task(hires=hires))
        if plan.active:
            infotext.write_active(p.extra_generation_params, options, plan.describe(), hires=hires)
        else:
            infotext.clear(p.extra_generation_params, hires=hires)
        return model, plan

    def _refuse(self, p: Any, reason: str, *, hires: bool) -> None:
        """Says in log, infotext and page why the pass runs unchanged; once per job and reason."""
        if p.extra_generation_params.get(infotext.REFUSED) != reason:
            logger.warning("not used: %s", reason)
            p.comment(f"HiDiffusion was not used: {reason}.")
        infotext.write_refused(p.extra_generation_params, reason, hires=hires)
