"""thop: a forward hook for each module type it knows, which adds to the module's own figure.

Hooks beside it note what of that is no product that the module makes.

The import name is shared by two distributions, thop and ultralytics-thop, a fork of it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from flopcuda.tools import kinds, recurrent
from flopcuda.tools.installed import provider
from flopcuda.tools.tool import Figure, Observation, Tool, whole

# What ``ret_layer_info`` gives: child name -> (operations, parameters, the same of its children).
Tree = Mapping[str, tuple[float, float, "Tree"]]


def observe(model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    """Run ``thop.profile`` and read its tree of modules."""
    is_fork = provider(TOOL) != "thop"
    parts: dict[str, Counter[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, recurrent.Recurrent | nn.modules.conv._ConvNd):
            parts[name] = Counter()
            module.register_forward_hook(partial(_note_parts, parts[name], is_fork))
    total, _, tree = importlib.import_module(TOOL.package).profile(
        model, inputs=inputs, verbose=False, ret_layer_info=True
    )
    shown = list(_own_figures("", total, tree))
    figures = tuple(_charged(model, shown, parts, repeats=not is_fork))
    return Observation(whole(total), figures, transposed_by_output=not is_fork)


def _note_parts(parts: Counter[str], is_fork: bool, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    """What thop's figure for one call of a module has besides the products of that call, by kind."""
    if isinstance(module, recurrent.Recurrent):
        parts.update((_FORK if is_fork else _ORIGINAL).parts(module, inputs[0]))
    elif isinstance(module, nn.modules.conv._ConvNd) and not is_fork and output.dim() == module.weight.dim() - 1:
        parts[kinds.UNBATCHED] += _unbatched(module, inputs[0], output)


def _unbatched(module: nn.modules.conv._ConvNd, image: Tensor, output: Tensor) -> int:
    """thop reads the channels off the second dimension, which is the height of an image without a batch."""
    channels = image.shape[1] // module.groups - module.in_channels // module.groups
    return output.numel() * channels * module.weight.shape[2:].numel()


def _steps(module: recurrent.Recurrent, input: recurrent.Input) -> int:
    """Of packed sequences as if all were as long as the longest; of unbatched ones as if they were a batch."""
    if isinstance(input, PackedSequence):
        return int(input.batch_sizes.max()) * len(input.batch_sizes)
    return recurrent.steps_of_a_batch(module, input)


def _products(module: recurrent.Recurrent) -> int:
    """As if no hidden state were projected."""
    directions = 2 if isinstance(module, nn.RNNBase) and module.bidirectional else 1
    first, further = module.input_size, recurrent.cells(module) // directions - 1
    widths = [first, *[directions * module.hidden_size] * further]
    rows = directions * recurrent.gates(module) * module.hidden_size
    return sum(rows * (width + module.hidden_size) for width in widths)


_ELEMENTWISE = {1: 1, 3: 7, 4: 8}
_FORK = recurrent.Convention(_ELEMENTWISE)
_ORIGINAL = recurrent.Convention(_ELEMENTWISE, _steps, _products)


def _own_figures(name: str, total: float, children: Tree) -> Iterator[tuple[str, int]]:
    """(name, figure) of each place in the tree, without what the places below it show."""
    yield name, whole(total) - sum(whole(operations) for operations, _, _ in children.values())
    for child, (operations, _, grandchildren) in children.items():
        yield from _own_figures(f"{name}.{child}" if name else child, operations, grandchildren)


def _charged(
    model: nn.Module, shown: list[tuple[str, int]], parts: Mapping[str, Counter[str]], *, repeats: bool
) -> Iterator[Figure]:
    """The figures by module and kind, each once.

    thop 0.1.1 gives a shared module a hook for each place that it has, so that each of its calls counts that often, and
    then adds the sum up once more for each place. The fork does neither, but shows the module at each place.
    """
    names = _first_names(model)
    modules = dict(model.named_modules())
    places = Counter(names[place] for place, _ in shown)
    for name, amount in {names[place]: amount for place, amount in shown}.items():
        once = amount // places[name] if repeats else amount
        known = parts.get(name, Counter())
        yield Figure(name, kinds.kind_of_module(modules[name]), once - known.total())
        yield from (Figure(name, kind, part) for kind, part in known.items())
        if repeats:
            yield Figure(name, kinds.SHARED_AGAIN, places[name] * amount - once)


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
        "MACs of convolution, linear and recurrent layers, with bias and elementwise work of the latter only, a "
        "transposed convolution taken for one of an input with zeros in between; batch norm at 4 per element (2 "
        "without affine parameters), adaptive average pool at its window + 1 and average pool at 1 per output; always "
        "in eval mode, functional calls unseen"
    ),
    per_mac=1,
    observe=observe,
)
