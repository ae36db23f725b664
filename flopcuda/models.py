"""The command line's MODEL: a torchvision name, or package.module:factory."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable

from torch import nn


def load_model(name: str) -> nn.Module:
    """Build a model with random weights, in eval mode.

    Args:
        name: a name that ``torchvision.models.get_model`` knows, or ``package.module:factory`` for a function or class
            that takes no argument and gives a ``torch.nn.Module``.

    Raises:
        ValueError: there is no such model; the sentence says what was looked for, and close names.
    """
    model = _model_from_factory(name) if ":" in name else _model_from_torchvision(name)
    return model.eval()


def _model_from_factory(name: str) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    try:
        factory: Callable[[], object] = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ValueError(f"model {name!r}: can't import {module_name}: {error}") from error
    except AttributeError:
        raise ValueError(f"model {name!r}: module {module_name} has no {attribute!r}") from None
    model = factory() if callable(factory) else factory
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r}: {attribute} gave a {type(model).__name__}, not a torch.nn.Module")
    return model


def _model_from_torchvision(name: str) -> nn.Module:
    try:
        from torchvision import models
    except ImportError:
        raise ValueError(
            f"model {name!r}: torchvision is not installed (pip install torchvision); "
            "a model of your own is named package.module:factory"
        ) from None
    known = models.list_models()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "a model of your own is named package.module:factory"
        raise ValueError(f"model {name!r}: torchvision has no such model; {hint}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's notices about weights that nobody loads here
        model: nn.Module = models.get_model(name, weights=None)
    return model
