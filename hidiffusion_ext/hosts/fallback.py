"""Makes a failed evaluation of the model again without us, and lets the pass go on so.

Every evaluation goes through one method, `apply_model`: of the model on A1111, of what holds the UNet in the Forge
family. It is wrapped on that one object for the time of a pass. If it fails, everything that is at work is taken off
and it is called again with what it was called with. A failure of the host's own then comes again, and is the host's;
interrupts and a lack of memory are left to it at once.

For the second try torch's global random numbers (of the CPU and of the device) are what they were, as are lists and
dictionaries among the arguments, which the Forge family empties. Not so what others keep for themselves inside of the
call: token merging's own generator, a count in another extension's hook. An error that another extension catches by
itself is never seen here.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, TypeVar, cast

import torch

from ..core import Change, Evaluation, Run
from .wrapping import wrap_method

Result = TypeVar("Result")
Say = Callable[[str, str], None]
"""(what was raised in one line, its traceback) -> says it"""


class Fallback:
    """What is at work in a pass, until something fails.

    Args:
        patches: Holds everything that is at work.
        run: The pass.
        say: Called once, when something has been made again without us, successfully.
    """

    def __init__(self, patches: ExitStack, run: Run, say: Say) -> None:
        self._patches, self._run, self._say = patches, run, say
        self._at_work = True

    def enter(self, patch: AbstractContextManager[Any]) -> None:
        """Puts something to work."""
        self._patches.enter_context(patch)

    def guarded(self, change: Change) -> Change:
        """A change of guidance that is left out from where anything fails on."""

        def changed(evaluation: Evaluation) -> torch.Tensor:
            if not self._at_work:
                return evaluation.guided
            return self._attempt(lambda: change(evaluation), lambda: evaluation.guided, evaluation.guided.device)

        return changed

    def evaluate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """An evaluation of the model."""
        if not self._at_work:
            return original(*args, **kwargs)
        self._run.timesteps = []
        same_args, same_kwargs = _copied(list(args)), _copied(kwargs)
        device = next(value.device for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        return self._attempt(lambda: original(*args, **kwargs), lambda: original(*same_args, **same_kwargs), device)

    def _attempt(self, with_us: Callable[[], Result], without_us: Callable[[], Result], device: torch.device) -> Result:
        restores = [_random_numbers(device), self._run.done.mark()]
        try:
            result = with_us()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # As text: the error itself would hold the tensors of the first try during the second.
            what, trace = _in_one_line(error), "".join(traceback.format_exception(error))
        else:
            return result if self._at_work else without_us()
        for restore in restores:
            restore()
        self._at_work = False
        with suppress(Exception):
            self._patches.close()
        result = without_us()
        self._run.done.switched_off = self._run.done.cut_short = True
        self._say(what, trace)
        return result


@contextmanager
def falling_back(evaluator: Any, run: Run, say: Say) -> Generator[Fallback, None, None]:
    """While open, what is entered on the given object is at work as long as nothing fails.

    Args:
        evaluator: The object whose `apply_model` evaluates the model.
        run: The pass.
        say: See `Fallback`.
    """
    with ExitStack() as outer, ExitStack() as patches:
        fallback = Fallback(patches, run, say)
        wrap_method(outer, evaluator, "apply_model", fallback.evaluate)
        yield fallback


def is_out_of_memory(error: Exception) -> bool:
    """Also where it is but a RuntimeError: of the CPU, MPS, DirectML and cuBLAS ("ALLOC_FAILED")."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).casefold()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "alloc" in text)


def _in_one_line(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")
    return text if len(text) <= 120 else text[:117] + "..."


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
