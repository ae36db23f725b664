"""Which module of a model is running, for tools that do not say where their figures belong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn


@contextmanager
def running_modules(model: nn.Module, before_change: Callable[[str], None] = lambda _: None) -> Iterator[list[str]]:
    """Follow the calls of a model's modules.

    Args:
        model: its modules get hooks for as long as the context lasts.
        before_change: is told the module that runs innermost, each time before another one begins or it ends.

    Yields:
        The dotted names of the modules that are running, innermost last. The first is always "".
    """
    running = [""]

    def enter(name: str, *_: Any) -> None:
        before_change(running[-1])
        running.append(name)

    def leave(*_: Any) -> None:
        before_change(running.pop())

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(enter, name)))
        hooks.append(module.register_forward_hook(leave))
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()
