"""What the figures of ptflops for modules are made of besides products: biases, elementwise work, misread shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from flopcuda.tools import kinds, recurrent


def parts_of_module(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Mapping[str, int]:
    """All of the figure for one call of a module but the products that the call makes, by kind."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return {kinds.BIAS: _bias(module, output), kinds.UNBATCHED: _unbatched(module, inputs[0], output)}
    if isinstance(module, nn.Linear):
        return {kinds.BIAS: _bias(module, output)}
    if isinstance(module, recurrent.Recurrent):
        return _RECURRENT.parts(module, inputs[0])
    if isinstance(module, nn.MultiheadAttention):
        return _parts_of_attention(module, inputs)
    return {}


def _bias(module: nn.modules.conv._ConvNd | nn.Linear, output: Tensor) -> int:
    return 0 if module.bias is None else output.numel()


def _unbatched(module: nn.modules.conv._ConvNd, image: Tensor, output: Tensor) -> int:
    """An image without a batch counts once for each of its channels, and as if it had an axis less."""
    if output.dim() == module.weight.dim():
        return 0
    windows = image if module.transposed else output
    positions = len(image) * windows.shape[2:].numel() - windows.shape[1:].numel()
    biased = 0 if module.bias is None else (len(image) - len(output)) * output.shape[1:].numel()
    return positions * module.weight.numel() + biased


def _recurrent_products(module: recurrent.Recurrent) -> int:
    """Those of input and hidden state, without a projection of the latter."""
    return sum(
        weight.numel() for name, weight in module.named_parameters() if name.startswith(("weight_ih", "weight_hh"))
    )


_RECURRENT = recurrent.Convention({1: 1, 3: 7, 4: 10}, recurrent.steps_of_a_batch, _recurrent_products)


def _parts_of_attention(module: nn.MultiheadAttention, inputs: tuple[Any, ...]) -> dict[str, int]:
    """One for each element of the scaled queries, of the scores and of what a bias is added to."""
    lengths = [tensor.shape[1 if module.batch_first else 0] for tensor in inputs]
    sequences, queries, width = inputs[0].shape[0 if module.batch_first else 1], lengths[0], module.embed_dim
    return {
        kinds.QUERY_SCALING: sequences * queries * width,
        kinds.SOFTMAX: sequences * module.num_heads * queries * lengths[1],
        kinds.BIAS: sequences * width * (queries + (0 if module.in_proj_bias is None else sum(lengths))),
    }
