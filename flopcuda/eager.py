"""Keeping torch.compile out of what has to run at every call of a compiled model, and not once when it is traced."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch._dynamo.eval_frame import skip_code

Function = TypeVar("Function", bound=Callable[..., Any])


def eagerly(function: Function) -> Function:
    """What :func:`torch.compiler.disable` makes of a function; but where torch.compile is not at work, itself.

    What torch's wrapper does even then takes as long as the bookkeeping that it is put around.
    """
    disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]

    @wraps(disabled)  # with the marks that keep torch.compile from tracing it
    def call(*args: Any, **kwargs: Any) -> Any:
        return (function if get_eval_frame_callback() is None else disabled)(*args, **kwargs)

    kept = cast(Function, call)
    skip_code(kept.__code__)
    return kept
