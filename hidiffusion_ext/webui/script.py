"""The AlwaysOn script: from the hooks of a job to the context around its sampling passes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from modules import scripts

from ..core import Method, OptionError, Options, Refused, Schedule
from ..core.native_first import MAKE_TWO
from ..core.options import SETTINGS, is_off
from ..core.sizes import CELL, Size
from ..core.words import describe
from ..hosts.asking import keep_noise_levels
from ..hosts.first_pass import is_shortened, needed_steps
from ..hosts.model import find_model, is_controlled
from ..hosts.native_first import (
    InOnePass,
    arrange,
    arranged_text,
    arrangement,
    ended_early,
    take_back,
)
from ..hosts.passes import plan_pass
from ..hosts.sampling import around_next_pass
from ..hosts.schedules import hires_latent
from . import infotext
from .log import NOT_YOURS, logger
from .panel import InputAccordion, build_panel
from .patched_pass import PatchedPass, unclosed

TOO_OLD = "this WebUI is too old for it; AUTOMATIC1111's is new enough from version 1.10 on"
AFTER_CONTROLNET = (
    "this picture is made in one pass, as ControlNet had fitted its own picture to the whole size before Native first "
    "could ask for a small one"
)
ENDED_EARLY = "stopped before the second pass: the picture is %dx%d"
NO_PASS = "another script made the picture in a way of its own, past the WebUI's samplers"


def _is_too_old() -> bool:
    """Whether the host has no hook of a pass."""
    return not hasattr(scripts.Script, "process_before_every_sampling")


class HiDiffusionScript(scripts.Script):
    """HiDiffusion on txt2img and img2img."""

    def title(self) -> str:
        return "HiDiffusion"

    def show(self, is_img2img: bool) -> object:
        """Always, except in a host that cannot show the panel and in a second installation of the extension, as both
        would patch the same UNet.
        """
        if InputAccordion is None:
            if not is_img2img:
                logger.warning("not used: %s", TOO_OLD)
            return False
        used = next((data.path for data in scripts.scripts_data if data.script_class is type(self)), self.filename)
        if self.filename == used:
            return scripts.AlwaysVisible
        if not is_img2img:
            logger.warning("installed twice: %s is used, %s is not; remove one of them", used, self.filename)
        return False

    def ui(self, is_img2img: bool) -> list[Any]:
        controls = build_panel(self.elem_id)
        self.infotext_fields = [(c, infotext.reader(setting)) for c, setting in zip(controls, SETTINGS.values())]
        return controls

    def before_process(self, p: Any, *args: Any) -> None:
        """Takes back what a job, or the one that it is a copy of, was arranged to be when it failed on the way."""
        take_back(p)

    def process(self, p: Any, *args: Any) -> None:
        """Gives the job other passes if its method makes them, before ControlNet fits its pictures to their sizes
        (metadata.ini).
        """
        options = self._options(p, args)
        if options is None or options.method not in MAKE_TWO or _is_too_old():
            return
        asked_for = options.method is not Method.AUTO
        try:
            arranged = arrangement(p, options)
            if arranged is None:
                return
            if is_controlled(find_model(p).unet):
                if asked_for:
                    logger.warning("%s", AFTER_CONTROLNET)
                    p.comment(f"HiDiffusion: {AFTER_CONTROLNET}.")
                return
            arrange(p, arranged)
            logger.info("%s", arranged.text)
            if arranged.guessed:
                logger.warning("the strength is a guess: %s", arranged.guessed)
        except Refused:  # said when the pass starts
            pass
        except InOnePass as reason:
            logger.info("%s", reason)
            if asked_for:
                p.comment(f"HiDiffusion: {reason}")
        except Exception as error:
            logger.error(NOT_YOURS, exc_info=error)
            p.comment(f"HiDiffusion made the picture at once, without a native one first: unexpected: {error!r}.")

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Notes what is expected, for the settings file the host writes before sampling starts, and nothing else."""
        infotext.forget(p.extra_generation_params)
        options = self._options(p, args)
        if options is None:
            return
        if _is_too_old():
            self._refuse(p, TOO_OLD, hires=False)
            return
        infotext.write_native_first(p.extra_generation_params, options, infotext.Expected(arranged_text(p)))
        if getattr(p, "firstpass_image", None) is None:  # otherwise an existing picture goes straight to the hires pass
            self._expect(p, options, (p.height // CELL, p.width // CELL), hires=False)
        if getattr(p, "enable_hr", False):
            self._expect(p, options, hires_latent(p), hires=True)

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Asks for the UNet to be patched for the pass that is about to start."""
        options = self._options(p, args)
        if options is None:
            return
        keep_noise_levels(p.sd_model)
        hires = getattr(p, "is_hr_pass", False)
        infotext.write_native_first(p.extra_generation_params, options, arranged_text(p))
        if not hires:
            infotext.clear(p.extra_generation_params, hires=True)  # expected so far; true once it starts
        one = PatchedPass(p, options, kwargs["x"], lambda reason: self._refuse(p, reason, hires=hires), hires=hires)
        around_next_pass(p.sampler, one.patched, one.failed, unclosed, None if hires else self._needed(p, options))

    def postprocess_batch(self, p: Any, *args: Any, images: torch.Tensor, **kwargs: Any) -> None:
        """Takes back what was expected and announced of passes that never began; the pictures' infotext is written
        after this.
        """
        for hires in infotext.take_back(p.extra_generation_params):
            self._refuse(p, NO_PASS, hires=hires)
        options = self._options(p, args)
        height, width = images.shape[-2:]
        if options and arranged_text(p) and ended_early(p, (height // CELL, width // CELL)):
            logger.info(ENDED_EARLY, width, height)

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        """Gives the job back as it was asked for: its pictures and their texts are made."""
        take_back(p)

    def _options(self, p: Any, args: tuple[Any, ...]) -> Options | None:
        """The job's options, or None if HiDiffusion is off or cannot be used as asked."""
        if is_off(args):
            return None
        try:
            options = Options.from_args(args)
        except OptionError as error:
            self._refuse(p, str(error), hires=getattr(p, "is_hr_pass", False))
            return None
        return options if options.enabled else None

    def _needed(self, p: Any, options: Options) -> Callable[[Schedule], int] | None:
        """How many steps of its schedule a job's first pass makes, which says so; None: all."""
        with suppress(Refused):  # said when the pass starts
            if is_shortened(p, options):
                needed = needed_steps(p)
                return lambda schedule: infotext.write_steps(
                    p.extra_generation_params, options, needed(schedule), schedule.steps
                )
        return None

    def _expect(self, p: Any, options: Options, latent: Size, *, hires: bool) -> None:
        """Notes in the infotext what a pass will get, as far as it is known before other extensions are ready."""
        try:
            _, plan = plan_pass(p, options, latent, hires=hires)
            expected = describe(plan) if plan.active else ""
        except Refused:  # said when the pass starts, if it is still so
            expected = ""
        infotext.write_active(p.extra_generation_params, options, infotext.Expected(expected), hires=hires)

    def _refuse(self, p: Any, reason: str, *, hires: bool) -> None:
        """Says in log, infotext and page why the pass runs unchanged; once per job and reason."""
        where = " in the second pass" if hires and arranged_text(p) else ""
        comment = f"HiDiffusion was not used{where}: {reason}."
        if comment not in p.comments:
            logger.warning("not used%s: %s", where, reason)
            p.comment(comment)
        infotext.write_refused(p.extra_generation_params, reason, hires=hires)
