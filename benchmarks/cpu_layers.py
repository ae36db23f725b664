"""Every kind of launch that a model makes, replayed against torch's own operator on the same tensors."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
import torchvision
from torch.nn import functional

import flopcuda
from benchmarks.side_by_side import paired_times
from flopcuda.ops import OPERATORS
from flopcuda.report import Launch

FLOAT_BYTES = 4


@dataclass(frozen=True)
class LayerTime:
    """A launch's time beside torch's.

    Attributes:
        model, batch, module: where it comes from, the first of its kind.
        description: operator and shapes.
        launches: of this kind in the model.
        seconds: median duration of the counted operator.
        ratio: median of that over torch's, in pairs.
        flops: counted FLOPs.
        byte_count: of operands and output, each once.
    """

    model: str
    batch: int
    module: str
    description: str
    launches: int
    seconds: float
    ratio: float
    flops: int
    byte_count: int


def layer_times(name: str, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Each kind of launch in a torchvision model's forward pass of images of 224x224, in order."""
    model = torchvision.models.get_model(name, weights=None).eval()
    with torch.no_grad(), flopcuda.instrument(model) as session:
        model(torch.randn(batch, 3, 224, 224))
        launches = session.report().launches
    kinds: dict[str, list[Launch]] = {}
    for launch in launches:
        kinds.setdefault(_description(launch), []).append(launch)
    with torch.no_grad():
        return [asdict(_layer_time(name, batch, text, same, rounds)) for text, same in kinds.items()]


def _description(launch: Launch) -> str:
    shapes = "x".join(map(str, launch.input_shape)), "x".join(map(str, launch.weight_shape))
    options = {key: value for key, value in launch.options.items() if key in ("stride", "groups", "dilation")}
    unusual = [f"{key} {value}" for key, value in options.items() if set(_listed(value)) != {1}]
    return " ".join([launch.op, shapes[0], "*", shapes[1], *unusual])


def _listed(value: Any) -> Iterable[int]:
    return [value] if isinstance(value, int) else list(value)


def _layer_time(name: str, batch: int, text: str, launches: list[Launch], rounds: int) -> LayerTime:
    launch = launches[0]
    counted, original = replays(launch)
    ours, theirs = paired_times(counted, original, rounds)
    elements = prod(launch.input_shape) + prod(launch.weight_shape) + prod(launch.output_shape)
    return LayerTime(
        name,
        batch,
        launch.module,
        text,
        len(launches),
        statistics.median(ours),
        statistics.median(mine / their for mine, their in zip(ours, theirs, strict=True)),
        launch.counters.flops,
        elements * FLOAT_BYTES,
    )


def replays(launch: Launch) -> tuple[Callable[[], object], Callable[[], object]]:
    """The counted operator and torch's, on random operands of the launch's shapes."""
    input, weight = torch.randn(launch.input_shape), torch.randn(launch.weight_shape)
    options = {key: value for key, value in launch.options.items() if key != "bias"}
    channels = launch.output_shape[1 if launch.op.startswith("conv") else -1]
    bias = torch.randn(channels) if launch.options["bias"] else None

    def counted() -> object:
        return OPERATORS[launch.op](input, weight, bias, **options)

    def original() -> object:
        if launch.op == "matmul":
            return torch.bmm(input, weight)
        if launch.op == "linear":
            return functional.linear(input, weight, bias)
        padding = options["padding"][::-2]  # both sides of an axis are alike in these models
        return functional.conv2d(
            input, weight, bias, options["stride"], padding, options["dilation"], options["groups"]
        )

    return counted, original
