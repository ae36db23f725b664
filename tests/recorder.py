"""A dispatch mode that notes what reaches it; around a session, what the session lets through."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(TorchDispatchMode):
    """The operators that get this far, and whether oneDNN may be used by each."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: dict[Any, bool] = {}

    @property
    def names(self) -> set[str]:
        return {operator.name() for operator in self.operators}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.operators[func] = torch._C._get_mkldnn_enabled()
        return func(*args, **(kwargs or {}))
