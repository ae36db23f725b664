"""Keeping torch.compile out of what has to run at every call of a compiled model, and not once when it is traced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch._dynamo.eval_frame import skip_code

Function = TypeVar("Function", bound=Callable[..., Any])


class _Compiled(threading.local):
    is_around = False


_compiled = _Compiled()


def is_within_compiled_code() -> bool:
    """Whether torch.compile is at work around a function that runs :func:`eagerly`: what it sets of torch's own state
    in this thread, as dispatch modes are, is not set any more once the compiled code returns.
    """
    return _compiled.is_around


def eagerly(function: Function) -> Function:
    """What :func:`torch.compiler.disable` makes of a function; but where torch.compile is not at work, itself.

    What torch's wrapper does even then takes as long as the bookkeeping that it is put around.
    """

    @wraps(function)
    def run_in_compiled_code(*args: Any, **kwargs: Any) -> Any:
        before, _compiled.is_around = _compiled.is_around, True
        try:
            return function(*args, **kwargs)
        finally:
            _compiled.is_around = before

    disabled = torch.compiler.disable(run_in_compiled_code)  # type: ignore[no-untyped-call]

    @wraps(disabled)  # with the marks that keep torch.compile from tracing it
    def call(*args: Any, **kwargs: Any) -> Any:
        return (function if get_eval_frame_callback() is None else disabled)(*args, **kwargs)

    kept = cast(Function, call)
    skip_code(kept.__code__)
    return kept
