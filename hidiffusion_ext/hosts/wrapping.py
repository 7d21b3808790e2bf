"""Puts a function around a method of one object, reversibly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any


def wrap_method(stack: ExitStack, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Calls of `owner.name(...)` become `wrapper(original, ...)` until the stack closes.

    Only this object is changed. What another program has put around our wrapper in the meantime stays, and then calls
    the original. The wrapper has the original's signature; the attributes that other programs give theirs stay theirs.
    """
    own = vars(owner).get(name)
    original = getattr(owner, name)
    is_open = True

    @functools.wraps(original, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs) if is_open else original(*args, **kwargs)

    def restore() -> None:
        nonlocal is_open
        is_open = False
        if vars(owner).get(name) is not call:
            return
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)

    setattr(owner, name, call)
    stack.callback(restore)
