"""Where an operator belongs: the modules that run, and the autograd nodes that lead back to one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flopcuda import _C
from flopcuda.report import Place


class ModuleStack:
    """The modules whose forward is running, innermost last.

    Args:
        model: gives the names; without one, the first module to run gives its class name to those in it.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._is_closed = model is not None
        self._names = {} if model is None else {module: name for name, module in model.named_modules()}
        self._running: list[tuple[nn.Module, int | None]] = []  # with the node in which it began

    @property
    def is_running(self) -> bool:
        return bool(self._running)

    def is_forward(self, node: Any) -> bool:
        """Whether what runs in an autograd node, or in none, is of a forward pass.

        It may be one in the midst of a backward pass, where a checkpointed module is computed again.
        """
        return node is None or (bool(self._running) and self._running[-1][1] == node._sequence_nr())

    @property
    def place(self) -> Place:
        """That of the innermost module with a name."""
        module = next((module for module, _ in reversed(self._running) if module in self._names), None)
        return Place("", "") if module is None else Place(self._names[module], type(module).__name__)

    def push(self, module: nn.Module) -> None:
        """A module's forward begins; one that is not the model's is passed over."""
        if not self._running and module not in self._names:
            if self._is_closed:
                return
            root = type(module).__name__
            self._names |= {child: f"{root}.{name}".rstrip(".") for name, child in module.named_modules()}
        node = torch._C._current_autograd_node()
        self._running.append((module, None if node is None else node._sequence_nr()))

    def pop(self, module: nn.Module) -> None:
        """It ends, and with it what an exception has left running inside it."""
        if self._running and self._running[-1][0] is module:
            self._running.pop()
        elif any(running is module for running, _ in self._running):
            while self._running.pop()[0] is not module:
                pass


class Origins:
    """From autograd's nodes to the places of the operators that made them, by sequence number."""

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}
        self._triangles: dict[int, str] = {}
        self.progress = _C.Progress()  # is told of what begins and ends

    def note(self, place: Place, triangle: str | None = None) -> None:
        """The operator that runs belongs to this place, and is a product of which no more than a triangle is computed.

        Under no transform, its node is the last one.
        """
        first, end = self.progress.take_nodes()
        self._places.update(dict.fromkeys(range(first, end), place))
        if triangle is not None:
            self._triangles[end - 1] = triangle

    def of(self, node: Any) -> Place | None:
        """Where a node was made, if that was noted."""
        return self._places.get(node._sequence_nr())

    def triangle_of(self, node: Any) -> str:
        """Of the product that made a node; "" if none was noted."""
        return self._triangles.get(node._sequence_nr(), "")

    def forget(self) -> None:
        """All of it."""
        self._places.clear()
        self._triangles.clear()
