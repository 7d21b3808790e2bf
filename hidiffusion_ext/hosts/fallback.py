"""Makes a failed evaluation of the model again with less of us, or without us, and lets the pass go on so.

Every evaluation goes through one method, `apply_model`: of the model on A1111, of what holds the UNet in the Forge
family. It is wrapped on that one object for the time of a pass. If it fails, it is called again with what it was called
with: without what may have failed (`Plan.lesser`), and at last with nothing of ours. A failure of the host's own then
comes again, and is the host's. Interrupts are re-raised at once, as are out-of-memory errors where we need no more
memory than the host alone. What is over by then has not failed. A change of guidance that fails is left out, for it is
never needed.

For another try torch's global random numbers (of the CPU and of the device) are what they were, as are lists and
dictionaries among the arguments, which the Forge family empties. Not so what others keep for themselves inside of the
call: token merging's own generator, a count in another extension's hook. An error that another extension catches by
itself is never seen here.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Collection, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, cast

import torch

from ..core import Need, Part, Plan, Refused, Run, Span
from .wrapping import wrap_method

Say = Callable[[Collection[str], str, str], None]
"""(names of what is left out from now on, what was raised in one line, its traceback) -> says it, and raises nothing"""

Attempt = Callable[[Callable[[], torch.Tensor], torch.Tensor], torch.Tensor]
"""(a change of guidance, what it is without it) -> the one or, if that fails, the other"""


class Fallback:
    """What is at work in a pass, less of it after each failure.

    Args:
        patches: Holds what is at work in the UNet.
        plan: What is to be at work.
        open_plan: Puts a plan to work.
        run: The pass.
        say: Called when something has been made again, successfully.
    """

    def __init__(
        self,
        patches: ExitStack,
        plan: Plan,
        open_plan: Callable[[Plan], AbstractContextManager[Any]],
        run: Run,
        say: Say,
    ) -> None:
        self._patches, self._open_plan, self._run, self._say = patches, open_plan, run, say
        self._plan: Plan | None = plan
        self._guides, self._is_changing = True, False
        patches.enter_context(open_plan(plan))

    def change(self, make: Callable[[], torch.Tensor], unchanged: torch.Tensor) -> torch.Tensor:
        """An `Attempt`; after one that failed there is no other in the pass."""
        if not self._guides or not self._plan:
            return unchanged
        restore = self._marks(unchanged.device)
        self._is_changing = True
        try:
            return make()
        except Exception as error:
            what, trace = _told(error)
        finally:
            self._is_changing = False
        restore()
        self._guides = False
        self._left_out([part.name for part in self._at_work() if Need.GUIDANCE in part.needs], what, trace)
        return unchanged

    def evaluate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """An evaluation of the model."""
        if not self._plan or self._is_changing:
            return original(*args, **kwargs)
        self._run.timesteps = []
        same_args, same_kwargs = _copied(list(args)), _copied(kwargs)
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        restore = self._marks(next((tensor.device for tensor in tensors), torch.device("cpu")))
        planned, left_out, told = list[str](), list[str](), None
        while True:
            try:
                result = original(*args, **kwargs)
                break
            except Exception as error:
                if not self._plan or (is_out_of_memory(error) and not self._plan.needs_memory(self._inside)):
                    raise
                if not told:
                    planned, told = self._names(), _told(error)
            restore()
            self._give_way()
            left_out = [name for name in planned if name not in self._names()]
            args, kwargs = _copied(same_args), _copied(same_kwargs)
        if told:
            self._left_out(left_out, *told)
        return result

    def _marks(self, device: torch.device) -> Callable[[], None]:
        """What puts back what a call changes, for another one."""
        restores = [_random_numbers(device), self._run.done.mark()]

        def restore() -> None:
            for one in restores:
                one()

        return restore

    def _inside(self, span: Span) -> bool:
        """Whether the current call, or the last one if this has not come to the UNet, is in a span."""
        run = self._run
        timestep = run.timestep if run.timesteps else min(run.done.called, default=math.inf)
        return run.schedule.inside(span, timestep)

    def _at_work(self) -> list[Part]:
        """What is due in the pass and not over before the current call."""
        due = [part for part in self._plan.parts if part.due(self._run.schedule)] if self._plan else []
        return [part for part in due if any(map(self._inside, part.spans))]

    def _names(self) -> list[str]:
        return [name for part in self._at_work() for name in part.names]

    def _give_way(self) -> None:
        """Goes on with less of what is at work, the most that can be put to work."""
        with suppress(Exception):
            self._patches.close()
        self._plan = self._plan and self._plan.lesser(self._at_work())
        if not self._plan:
            return
        try:
            self._patches.enter_context(self._open_plan(self._plan))
        except Exception:
            self._give_way()

    def _left_out(self, what: Collection[str], raised: str, trace: str) -> None:
        done = self._run.done
        done.left_out |= {*what}
        if not self._plan:
            done.switched_off = done.cut_short = True
        self._say(what, raised, trace)


@contextmanager
def falling_back(
    evaluator: Any, plan: Plan, open_plan: Callable[[Plan], AbstractContextManager[Any]], run: Run, say: Say
) -> Generator[Fallback, None, None]:
    """While open, a plan is at work on the given object as long as nothing fails.

    Args:
        evaluator: The object whose `apply_model` evaluates the model.
        plan, open_plan, run, say: See `Fallback`.
    """
    with ExitStack() as outer, ExitStack() as patches:
        fallback = Fallback(patches, plan, open_plan, run, say)
        wrap_method(outer, evaluator, "apply_model", fallback.evaluate)
        yield fallback


def is_out_of_memory(error: Exception) -> bool:
    """Also where it is but a RuntimeError: of the CPU, MPS, DirectML and cuBLAS ("ALLOC_FAILED")."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).casefold()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "alloc" in text)


def _told(error: Exception) -> tuple[str, str]:
    """An error in one line, and its traceback: as text, for the error holds the tensors of the call that failed."""
    text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")
    return text if len(text) <= 120 else text[:117] + "...", "".join(traceback.format_exception(error))


def _random_numbers(device: torch.device) -> Callable[[], None]:
    """What puts torch's global random numbers, of the CPU and a device, back to where they are now."""
    cpu = torch.get_rng_state()
    backend: Any = None if device.type == "cpu" else getattr(torch, device.type, None)
    where = () if device.type == "mps" else (device,)
    state = backend.get_rng_state(*where) if hasattr(backend, "get_rng_state") else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        if state is not None:
            backend.set_rng_state(state, *where)

    return restore


def _copied(value: Any) -> Any:
    """Nested lists and dictionaries made anew; what they hold is the same."""
    if type(value) is dict:
        return {key: _copied(item) for key, item in cast("dict[Any, Any]", value).items()}
    if type(value) is list:
        return [_copied(item) for item in cast("list[Any]", value)]
    return value
