"""thop: a forward hook for each module type it knows, which adds to the module's own figure.

The import name is shared by two distributions, thop and ultralytics-thop, a fork of it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from flopcuda.tools.installed import provider
from flopcuda.tools.kinds import SHARED_AGAIN, kind_of_module
from flopcuda.tools.tool import Figure, Observation, Tool, whole

# What ``ret_layer_info`` gives: child name -> (operations, parameters, the same of its children).
Tree = Mapping[str, tuple[float, float, "Tree"]]


def observe(model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    """Run ``thop.profile`` and read its tree of modules."""
    total, _, tree = importlib.import_module(TOOL.package).profile(
        model, inputs=inputs, verbose=False, ret_layer_info=True
    )
    shown = list(_own_figures("", total, tree))
    figures = tuple(_charged(model, shown))
    return Observation(whole(total), figures, transposed_by_output=provider(TOOL) == "thop")


def _own_figures(name: str, total: float, children: Tree) -> Iterator[tuple[str, int]]:
    """(name, figure) of each place in the tree, without what the places below it show."""
    yield name, whole(total) - sum(whole(operations) for operations, _, _ in children.values())
    for child, (operations, _, grandchildren) in children.items():
        yield from _own_figures(f"{name}.{child}" if name else child, operations, grandchildren)


def _charged(model: nn.Module, shown: list[tuple[str, int]]) -> Iterator[Figure]:
    """The figures by module, each once.

    thop 0.1.1 gives a shared module a hook for each place that it has, so that each of its calls counts that often, and
    then adds the sum up once more for each place. The fork does neither, but shows the module at each place.
    """
    names = _first_names(model)
    modules = dict(model.named_modules())
    places = Counter(names[place] for place, _ in shown)
    repeats = provider(TOOL) == "thop"
    for name, amount in {names[place]: amount for place, amount in shown}.items():
        once = amount // places[name] if repeats else amount
        yield Figure(name, kind_of_module(modules[name]), once)
        if repeats:
            yield Figure(name, SHARED_AGAIN, places[name] * amount - once)


def _first_names(model: nn.Module) -> dict[str, str]:
    """Every dotted name of every module -> the first name of that module, which differ where a module is shared."""
    first: dict[nn.Module, str] = {}
    return {name: first.setdefault(module, name) for name, module in model.named_modules(remove_duplicate=False)}


TOOL = Tool(
    name="thop",
    package="thop",
    distributions=("thop", "ultralytics-thop"),
    unit="MACs",
    convention=(
        "MACs of convolution and linear layers without their bias, batch norm at 4 per element (2 without affine "
        "parameters), adaptive average pool at its window + 1 and average pool at 1 per output; always in eval mode, "
        "functional calls unseen"
    ),
    per_mac=1,
    observe=observe,
)
