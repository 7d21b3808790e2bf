"""Opens a context around exactly one sampling pass of a WebUI's sampler and tells it the schedule that pass runs.

Every pass of every job ends in one call `sampler.func(model, x, ..., sigmas=... or timesteps=...)`, whose arguments
are the noise levels this pass really runs: already cut for img2img and hires, with the scheduler and all settings
applied. The attribute `func` of the sampler object (made anew for a job) is wrapped for that one call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..core import Schedule
from .schedules import can_be_cut, cut_short, pass_schedule
from .wrapping import wrap_method

OpenContext = Callable[[Schedule], AbstractContextManager[None]]
Say = Callable[[Exception], None]
"""Tells of a failure, and raises nothing."""

REQUEST = "hidiffusion_request"
"""Where a sampler keeps what takes back the request that has not started."""


def around_next_pass(
    sampler: Any,
    open_context: OpenContext,
    on_failure: Say,
    on_unclosed: Say,
    needed: Callable[[Schedule], int] | None = None,
) -> None:
    """Opens `open_context(schedule)` around the sampler's next pass, and takes itself away when the pass ends.

    Asked again before the pass starts, only the last request counts. The context is closed however the pass ends. When
    the host takes another model in the middle of the pass (refiner), it is closed and opened anew.

    Args:
        sampler: The job's sampler object.
        open_context: Gets the pass's schedule, in the UNet's own units.
        on_failure: Called if the schedule cannot be read or the context cannot be opened; the pass then runs as if
            this had not been asked for.
        on_unclosed: Called if something fails that the pass outlives: closing the context, or shortening the pass.
        needed: How many steps of the pass's schedule are made, the last of them to its clean estimate; None: all.
    """
    if not callable(getattr(sampler, "func", None)):
        on_failure(TypeError(f"the sampler {type(sampler).__name__} is not made like the WebUI's own"))
        return
    cancel(sampler)

    def one_pass(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        cancel(sampler)
        current, arguments = ExitStack(), kwargs

        def close(*raised: Any) -> None:
            try:
                current.__exit__(*raised)
            except Exception as error:
                on_unclosed(error)

        def open_anew() -> None:
            close(None, None, None)
            try:
                current.enter_context(open_context(pass_schedule(sampler, arguments)))
            except Exception as error:
                on_failure(error)

        def take_other_model(original: Callable[[], None]) -> None:
            original()
            open_anew()

        if needed and can_be_cut(sampler, kwargs):
            try:
                arguments = cut_short(kwargs, needed(pass_schedule(sampler, kwargs)))
            except Exception as error:
                on_unclosed(error)
        with ExitStack() as outer:
            outer.push(close)
            open_anew()
            denoiser = getattr(sampler, "model_wrap_cfg", None)
            if hasattr(denoiser, "update_inner_model"):
                wrap_method(outer, denoiser, "update_inner_model", take_other_model)
            return func(*args, **arguments)

    request = ExitStack()
    wrap_method(request, sampler, "func", one_pass)  # its signature tells samplers which arguments it takes
    setattr(sampler, REQUEST, request)


def cancel(sampler: Any) -> None:
    """Takes back a request whose pass has not started."""
    request: ExitStack | None = vars(sampler).pop(REQUEST, None)
    if request is not None:
        request.close()
