"""What a session has counted: launches, and their sums by module, by operator and in total."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from flopcuda import geometry


@dataclass(frozen=True)
class Counters:
    """The record of one launch, or the sum of several.

    Attributes:
        mul: multiplications that feed an output element, products with a zero-padding tap included.
        add: additions onto an accumulator that already holds a product or a bias, plus bias additions.
        pad: those of ``mul`` whose input tap lies in the zero padding.
        lane: multiply lanes the device executed, tile-edge waste included.
        zero: those of ``mul``, padding aside, with an operand equal to 0; None when it was not asked for.
    """

    mul: int = 0
    add: int = 0
    pad: int = 0
    lane: int = 0
    zero: int | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulates: ``mul``."""
        return self.mul

    @property
    def flops(self) -> int:
        """Floating-point operations: ``mul + add``."""
        return self.mul + self.add

    @property
    def effective_macs(self) -> int | None:
        """MACs that change a result: ``mul - pad - zero``; None when zeros were not counted."""
        return None if self.zero is None else self.mul - self.pad - self.zero

    @property
    def tile_efficiency(self) -> float:
        """``mul / lane``: the share of executed multiply lanes that fed an output; 1.0 when nothing was executed."""
        return self.mul / self.lane if self.lane else 1.0

    @staticmethod
    def sum(records: Iterable[Counters]) -> Counters:
        """Field by field; ``zero`` is None as soon as one record did not count it."""
        listed = list(records)
        zeros = [record.zero for record in listed if record.zero is not None]
        return Counters(
            mul=sum(record.mul for record in listed),
            add=sum(record.add for record in listed),
            pad=sum(record.pad for record in listed),
            lane=sum(record.lane for record in listed),
            zero=sum(zeros) if listed and len(zeros) == len(listed) else None,
        )

    def to_dict(self) -> dict[str, int]:
        """The fields with ``macs`` and ``flops``; ``zero`` and ``effective_macs`` only when zeros were counted."""
        fields = {**asdict(self), "macs": self.macs, "flops": self.flops, "effective_macs": self.effective_macs}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Place:
    """Where an operator ran: a module's dotted name, "" for the model itself, and its class name.

    Outside any module both are "".
    """

    module: str
    module_type: str

    def __str__(self) -> str:
        return f"{self.module or 'the model'} ({self.module_type})" if self.module_type else "outside any module"


@dataclass(frozen=True)
class NotCounted:
    """An operator that multiplies and accumulates, or may, and has no counted kernel.

    Attributes:
        module, module_type: as in :class:`Launch`.
        operator: its name in torch: "aten.convolution_backward".
        calls: how often it ran there.
    """

    module: str
    module_type: str
    operator: str
    calls: int


@dataclass(frozen=True)
class Launch:
    """One launch of a counted kernel.

    Attributes:
        module: dotted name in the model, "" for the model itself.
        module_type: class name of the module.
        phase: "forward", or "backward_input" or "backward_weight" for the gradient of the operator's first or second
            factor; "backward" where torch doesn't tell which of the two (:mod:`flopcuda.phases` says when).
        op: "conv2d", "linear" or "matmul".
        input_shape, weight_shape, output_shape: sizes of the tensors; of a matmul's first and second factor.
        options: the operator's other arguments: bias, for a convolution stride, padding (left, right, top, bottom),
            dilation and groups, and ``flipped`` if it reads the last tap of every axis first; for a matmul of which a
            triangle is computed, ``triangle``, as :func:`flopcuda.ops.matmul` takes it.
        dtype, device: of the input, as torch prints them.
        backend: "native", or "ptxvm" for the CUDA kernels on the PTX machine.
        kernel: name of the kernel that ran.
        counters: what the device counted.
        seconds: its duration; None where it could not be timed (inside a CUDA graph capture), or would say nothing (on
            the PTX machine).
        executed_macs: lanes of multiply-accumulate instructions that the PTX machine executed, by its own count: what
            ``counters.lane`` must come to. None where nothing but the kernel counts.
        wave_efficiency: predicted from the grid: blocks that multiply of the device's average multiprocessor over those
            of its busiest; None where no CUDA device ran the kernel.
        splits: parts of each sum that blocks computed and added up; 1 if it is one block's, and on the CPU.
    """

    module: str
    module_type: str
    phase: str
    op: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    options: Mapping[str, Any]
    dtype: str
    device: str
    backend: str
    kernel: str
    counters: Counters
    seconds: float | None
    executed_macs: int | None
    wave_efficiency: float | None = None
    splits: int = 1

    @property
    def dense_macs(self) -> int:
        """What the formula for dense operands says, from the shapes: of masked attention, causal or not, all of it."""
        return geometry.formula_values(self)["macs"]

    @property
    def flops_per_second(self) -> float | None:
        """Achieved FLOPS of this launch; None when it was not timed."""
        return self.counters.flops / self.seconds if self.seconds else None


@dataclass(frozen=True)
class Summary:
    """The sum of some launches: a module's, an operator's or all of them.

    Attributes:
        name: the module's or operator's name.
        launches: the launches that were summed, in the order in which they ran.
        counters: the sum of their counters.
    """

    name: str
    launches: tuple[Launch, ...] = field(repr=False)

    @cached_property
    def counters(self) -> Counters:
        return Counters.sum(launch.counters for launch in self.launches)

    @property
    def mul(self) -> int:
        return self.counters.mul

    @property
    def add(self) -> int:
        return self.counters.add

    @property
    def pad(self) -> int:
        return self.counters.pad

    @property
    def lane(self) -> int:
        return self.counters.lane

    @property
    def zero(self) -> int | None:
        return self.counters.zero

    @property
    def macs(self) -> int:
        """Multiply-accumulates: ``mul``."""
        return self.counters.macs

    @property
    def flops(self) -> int:
        """Floating-point operations: ``mul + add``."""
        return self.counters.flops

    @property
    def effective_macs(self) -> int | None:
        """MACs that change a result: ``mul - pad - zero``; None when zeros were not counted."""
        return self.counters.effective_macs

    @property
    def dense_macs(self) -> int:
        """What the formulas for dense operands say, from the shapes; ``macs`` is what was executed."""
        return sum(launch.dense_macs for launch in self.launches)

    @property
    def seconds(self) -> float | None:
        """Sum of the launches' durations; None when one was not timed."""
        durations = [launch.seconds for launch in self.launches if launch.seconds is not None]
        return sum(durations) if len(durations) == len(self.launches) else None

    @property
    def executed_macs(self) -> int | None:
        """Multiply-accumulate lanes that the PTX machine saw; None when a launch ran elsewhere."""
        seen = [launch.executed_macs for launch in self.launches if launch.executed_macs is not None]
        return sum(seen) if len(seen) == len(self.launches) else None

    @property
    def wave_efficiency(self) -> float | None:
        """Predicted, of all launches as if multiply lanes took the time; None when a launch was on no CUDA device."""
        lanes = [(launch.counters.lane, launch.wave_efficiency) for launch in self.launches if launch.counters.lane]
        slots = [lane / efficiency for lane, efficiency in lanes if efficiency]
        return sum(lane for lane, _ in lanes) / sum(slots) if lanes and len(slots) == len(lanes) else None

    @property
    def flops_per_second(self) -> float | None:
        """Achieved FLOPS inside the counted kernels; None when a launch was not timed or there is none."""
        seconds = self.seconds
        return self.flops / seconds if seconds else None


@dataclass(frozen=True)
class Report:
    """All launches of a session, and their sums on request.

    Attributes:
        launches: one record a launch, in the order in which they ran.
        not_counted: what multiplied and accumulated besides, as far as it was seen (``capture="ops"``).
    """

    launches: tuple[Launch, ...]
    not_counted: tuple[NotCounted, ...] = ()

    @cached_property
    def total(self) -> Summary:
        """Everything that was counted."""
        return Summary("total", self.launches)

    def by_module(self) -> dict[str, Summary]:
        """Sums by module, keyed by dotted name, in the order of first use. A shared module counts under one name."""
        return self._grouped_by(lambda launch: launch.module)

    def by_operator(self) -> dict[str, Summary]:
        """Sums by operator: "conv2d", "linear", "matmul"."""
        return self._grouped_by(lambda launch: launch.op)

    def _grouped_by(self, key: Callable[[Launch], str]) -> dict[str, Summary]:
        groups: dict[str, list[Launch]] = {}
        for launch in self.launches:
            groups.setdefault(key(launch), []).append(launch)
        return {name: Summary(name, tuple(launches)) for name, launches in groups.items()}
