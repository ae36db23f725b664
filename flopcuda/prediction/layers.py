"""A model's layers without a GPU and without their arithmetic: shapes from a run on torch's meta device, times from the
model of a launch.

The run is a session like any other, so that what is predicted is what would be counted: the same layers, lowered into
the same launches, with the kernels that the planner chooses for the GPU. Only the backend executes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from flopcuda import _C
from flopcuda.arguments import as_arguments
from flopcuda.backends import Execution, Operands
from flopcuda.formulas import TriangleSizes
from flopcuda.gradients import in_order
from flopcuda.kernels.build import built_usage
from flopcuda.kernels.occupancy import occupancy
from flopcuda.ops import COUNTER_FIELDS, OPERATORS, Device, KernelChoice, choose_kernel, is_set_to_tf32
from flopcuda.prediction.gpus import GPU
from flopcuda.prediction.model import LAUNCH_SECONDS, Tiling, Time, Work, predict_time, roofline
from flopcuda.report import NotCounted
from flopcuda.session import Session

_DTYPE_BYTES = {"float64": 8, "float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class LayerPrediction:
    """One launch of a layer.

    Attributes:
        module, module_type, op: as in :class:`flopcuda.report.Launch`.
        input_shape, weight_shape, output_shape: likewise.
        kernel: that the planner chooses.
        splits: parts into which it splits the reduction.
        gathers_width: whether taps of a convolution's width become channels, images being stored once for each window.
        unit: that multiplies in it.
        work: what it multiplies.
        time: of the launch.
        conversion: seconds before and after it for tensors that the kernel takes in another dtype or layout.
        roofline: seconds that no kernel of this unit can beat.
    """

    module: str
    module_type: str
    op: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernel: str
    splits: int
    gathers_width: bool
    unit: str
    work: Work
    time: Time
    conversion: float
    roofline: float

    @property
    def seconds(self) -> float:
        return self.time.seconds + self.conversion

    @property
    def bound_by(self) -> str:
        """As :attr:`Time.bound_by`, or "conversion"."""
        return "conversion" if self.conversion > self.time.seconds else self.time.bound_by

    def to_dict(self) -> dict[str, Any]:
        """As in the command line's JSON."""
        return {**asdict(self), "seconds": self.seconds, "bound_by": self.bound_by}


@dataclass(frozen=True)
class Prediction:
    """What :func:`predict` found.

    Attributes:
        model: the model's name.
        gpu: the GPU.
        layers: one entry a launch of a counted kernel, in the order in which they run.
        not_predicted: what multiplies and accumulates besides; elementwise operators are not looked at at all.
    """

    model: str
    gpu: GPU
    layers: tuple[LayerPrediction, ...]
    not_predicted: tuple[NotCounted, ...]

    @property
    def seconds(self) -> float:
        """Of all layers, one after another."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.work.multiply_adds for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The command line's JSON."""
        return {
            "model": self.model,
            "gpu": {**asdict(self.gpu), "rates": self.gpu.rates},
            "seconds": self.seconds,
            "multiply_adds": self.multiply_adds,
            "layers": [layer.to_dict() for layer in self.layers],
            "not_predicted": [asdict(entry) for entry in self.not_predicted],
        }


def predict(model: nn.Module, inputs: Tensor | Sequence[Any], gpu: GPU, *, name: str | None = None) -> Prediction:
    """Predict the time of each counted launch of one forward pass, by this project's kernels, on a GPU.

    float32 is multiplied as TF32 where torch is set to, as on a GPU: by default in convolutions, and in matrix products
    after ``torch.set_float32_matmul_precision("high")``.

    Args:
        model: the model; stays as it is, and needs no copy of its parameters.
        inputs: its positional arguments; a single tensor stands for itself. Values are not looked at: tensors on the
            meta device will do.
        gpu: one of :data:`flopcuda.prediction.GPUS`, or another.
        name: what to call the model; its class name by default.

    Raises:
        RuntimeError, TypeError, ValueError: as :func:`flopcuda.instrument`, a counted layer, or the model itself on
            tensors without values.
        ValueError: the model ran no layer that is counted.
    """
    shadow = _on_meta(model)
    arguments = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, as_arguments(inputs))
    backend = _PredictingBackend(gpu)
    session = Session(shadow, count_zero=False, backend=backend, capture_ops=True)
    with session, torch.no_grad():
        shadow(*arguments)
    report = session.report()
    if not report.launches:
        raise ValueError(f"{name or type(model).__name__} ran no layer whose time could be predicted")
    layers = tuple(
        LayerPrediction(
            launch.module,
            launch.module_type,
            launch.op,
            launch.input_shape,
            launch.weight_shape,
            launch.output_shape,
            launch.kernel,
            **fields,
        )
        for launch, fields in zip(report.launches, backend.predicted, strict=True)
    )
    return Prediction(name or type(model).__name__, gpu, layers, report.not_counted)


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy of the model whose parameters and buffers have shapes only."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    shadows = {id(tensor): _shadow(tensor) for tensor in tensors}
    return copy.deepcopy(model, shadows)


def _shadow(tensor: Tensor) -> Tensor:
    meta = tensor.detach().to("meta")
    return nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta


class _PredictingBackend:
    """Gives shapes and predicts times. The counters of its launches stay 0: nothing was executed."""

    name = "prediction"

    def __init__(self, gpu: GPU) -> None:
        self._gpu = gpu
        self.predicted: list[dict[str, Any]] = []

    def takes(self, tensor: Tensor) -> bool:
        """Shapes are enough."""
        return True

    def run(
        self, op: str, operands: Operands, options: Mapping[str, Any], count_zero: bool
    ) -> tuple[Tensor, Execution]:
        """Predict one operator on tensors of the meta device."""
        operands, options = in_order(operands, options)
        output, _ = OPERATORS[op](*operands, **options, count_zero=count_zero)
        choice = choose_kernel(
            op,
            *operands,
            device=device_of(self._gpu),
            count_zero=count_zero,
            allow_tf32=is_set_to_tf32(op),
            **options,
        )
        entry = _entries()[choice.name]
        work = work_of(op, operands, output, options.get("groups", 1), entry, choice, options.get("triangle"))
        time = predict_time(work, tiling_of(choice.name, self._gpu), self._gpu, choice.splits)
        conversion = conversion_seconds(op, [*operands, output], entry, choice, self._gpu)
        self.predicted.append(
            {
                "splits": choice.splits,
                "gathers_width": choice.gathers_width,
                "unit": entry["unit"],
                "work": work,
                "time": time,
                "conversion": conversion if time.blocks else 0.0,
                "roofline": roofline(work, entry["unit"], self._gpu),
            }
        )
        counters = torch.zeros(len(COUNTER_FIELDS), dtype=torch.int64)
        seconds = time.seconds + conversion
        return output, Execution(
            counters,
            choice.name,
            lambda: seconds,
            wave_efficiency=time.wave_efficiency,
            splits=choice.splits,
        )


def work_of(
    op: str,
    operands: Operands,
    output: Tensor,
    groups: int,
    kernel: Mapping[str, Any],
    choice: KernelChoice | None = None,
    triangle: str | None = None,
) -> Work:
    """What an operator multiplies, as a kernel of :func:`flopcuda._C.cuda_kernels` sees it.

    A convolution's rows are the output channels of a group, and its columns pixels; on tensor cores it is the other way
    round, and its reduction has as many segments, and its images as many numbers, as the choice says. Batches of matrix
    products are those of linear layers.
    """
    input, weight, _ = operands
    scalar_bytes = _DTYPE_BYTES[kernel["dtype"]]
    first, second, outputs = (tensor.numel() * scalar_bytes for tensor in (input, weight, output))
    if op == "linear":
        return Work(1, input.shape[:-1].numel(), weight.shape[0], weight.shape[1], first, second, outputs, False)
    if op == "matmul":
        batch, rows, reduction = input.shape
        if triangle in ("input", "upper_input"):  # no more of it is read
            read = TriangleSizes(triangle=triangle, rows=rows, depth=reduction, columns=weight.shape[2]).elements
            first = batch * read * scalar_bytes
        return Work(batch, rows, weight.shape[2], reduction, first, second, outputs, False, triangle=triangle)
    channels, reduction = weight.shape[0] // groups, weight.shape[1:].numel()
    pixels, taps = output.numel() // weight.shape[0], weight.shape[2:].numel()
    if _on_tensor_cores(kernel):
        segments, stored = (choice.segments, choice.stored_inputs * scalar_bytes) if choice else (1, first)
        return Work(groups, pixels, channels, reduction, first, second, outputs, False, segments, stored - first)
    return Work(groups, channels, pixels, reduction, second, first, outputs, True, taps)


def _on_tensor_cores(kernel: Mapping[str, Any]) -> bool:
    return str(kernel["unit"]).startswith("mma")


def conversion_seconds(
    op: str, tensors: Sequence[Tensor | None], kernel: Mapping[str, Any], choice: KernelChoice, gpu: GPU
) -> float:
    """Of tensors that the kernel takes or gives otherwise: a launch for each, reading one and writing the other.

    Convolutions on tensor cores take and give tensors with their channels last, matrix products a second factor whose
    columns are rows in memory. Where taps of a padded width become channels, the images are copied twice.
    """
    scalar_bytes = _DTYPE_BYTES[kernel["dtype"]]

    def is_converted(tensor: Tensor) -> bool:
        if tensor.element_size() != scalar_bytes:
            return True
        if op == "matmul":
            return tensor is tensors[1] and not tensor.mT.is_contiguous()
        return op.startswith("conv") and _on_tensor_cores(kernel) and tensor.dim() > 1

    others = [tensor for tensor in tensors if tensor is not None and is_converted(tensor)]
    moved = sum(tensor.numel() * (tensor.element_size() + scalar_bytes) for tensor in others)
    launches = len(others)
    if op.startswith("conv") and _on_tensor_cores(kernel):
        images = tensors[0]
        assert images is not None
        moved += (choice.stored_inputs - images.numel() + 2 * choice.padded_inputs) * scalar_bytes
        launches += choice.padded_inputs > 0
    return launches * LAUNCH_SECONDS + moved / gpu.bandwidth


def tiling_of(kernel: str, gpu: GPU) -> Tiling:
    """One of the project's kernels on a GPU."""
    entry = _entries()[kernel]
    resident = dict(zip(_entries(), device_of(gpu).resident_blocks, strict=True))
    return Tiling(
        kernel,
        tuple(entry["tile"]),
        entry["unit"],
        entry["multiply_share"],
        resident[kernel],
        part_unit=entry["part_unit"],
        fixed_slices=entry["fixed_slices"],
    )


@cache
def device_of(gpu: GPU) -> Device:
    """What the planner is told of a GPU."""
    facts = _C.device_properties(
        gpu.product, gpu.capability, gpu.multiprocessors, hertz=gpu.hertz, bandwidth=gpu.bandwidth
    )
    return Device(**facts, resident_blocks=tuple(_resident_blocks(gpu)))


def _resident_blocks(gpu: GPU) -> list[int]:
    """From the registers and shared memory of the build for this architecture, or else from the launch bounds."""
    usage = built_usage()
    blocks = []
    for name, entry in _entries().items():
        used = usage.get((name, gpu.architecture))
        if used is None:
            blocks.append(_C.RESIDENT_THREADS // entry["threads"])
        else:
            held = occupancy(gpu.architecture, entry["threads"], used.registers, used.shared_bytes)
            blocks.append(held.blocks)
    return blocks


@cache
def _entries() -> dict[str, dict[str, Any]]:
    """The CUDA kernels by name, in the planner's order."""
    return {entry["name"]: entry for entry in _C.cuda_kernels()}
