"""Opens a context around exactly one sampling pass of a WebUI's sampler and tells it the schedule that pass runs.

Every pass of every job ends in one call `sampler.func(model, x, ..., sigmas=... or timesteps=...)`, whose arguments
are the noise levels this pass really runs: already cut for img2img and hires, with the scheduler and all settings
applied. The attribute `func` of the sampler object (made anew for a job) is wrapped for that one call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..core import Schedule
from .schedules import pass_schedule
from .wrapping import wrap_method

OpenContext = Callable[[Schedule], AbstractContextManager[None]]


def around_next_pass(sampler: Any, open_context: OpenContext, on_failure: Callable[[Exception], None]) -> None:
    """Opens `open_context(schedule)` around the sampler's next pass, and takes itself away when the pass ends.

    Asked again before the pass starts, only the last request counts. The context is closed however the pass ends. When
    the host takes another model in the middle of the pass (refiner), it is closed and opened anew.

    Args:
        sampler: The job's sampler object.
        open_context: Gets the pass's schedule, in the UNet's own units.
        on_failure: Called if the schedule cannot be read or the context cannot be opened; the pass then runs as if
            this had not been asked for.
    """
    func = getattr(sampler, "func", None)
    if not callable(func):
        on_failure(TypeError(f"the sampler {type(sampler).__name__} is not made like the WebUI's own"))
        return
    cancel(sampler)
    func = sampler.func

    @functools.wraps(func)  # samplers look at the signature to see which arguments the function takes
    def one_pass(*args: Any, **kwargs: Any) -> Any:
        cancel(sampler)
        with ExitStack() as outer:
            current = outer.enter_context(ExitStack())

            def open_anew() -> None:
                try:
                    current.close()
                    current.enter_context(open_context(pass_schedule(sampler, kwargs)))
                except Exception as error:
                    on_failure(error)

            def take_other_model(original: Callable[[], None]) -> None:
                original()
                open_anew()

            open_anew()
            denoiser = getattr(sampler, "model_wrap_cfg", None)
            if hasattr(denoiser, "update_inner_model"):
                wrap_method(outer, denoiser, "update_inner_model", take_other_model)
            return func(*args, **kwargs)

    one_pass.hidiffusion_original = func  # type: ignore[attr-defined]
    sampler.func = one_pass


def cancel(sampler: Any) -> None:
    """Takes back a request whose pass has not started."""
    sampler.func = getattr(sampler.func, "hidiffusion_original", sampler.func)
