"""FlopCounterMode's number for a training step, and the ledger that leads to it from what was counted.

Its formulas (torch/utils/flop_counter.py) differ from what is executed in three ways: fused attention on the CPU has
none; the gradient of a convolution's input is taken for every tap of every output, also those that reach into the
padding and are cropped, where the kernels skip those and may execute some of their own padding; and the gradient of a
grouped convolution's weight is taken for every pair of channels, also of different groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from flopcuda.geometry import taps_inside
from flopcuda.gradients import BACKWARD_INPUT
from flopcuda.report import Launch
from flopcuda.tools import torch_flop_counter
from flopcuda.tools.installed import version
from flopcuda.tools.ledger import COUNTED
from flopcuda.tools.report import Term, ToolReport
from flopcuda.tools.sandbox import copy_of, quiet
from flopcuda.tools.unseen import attention_macs, is_fused_attention

ATTENTION = "not seen: fused attention and its gradients"
CROPPED = "taps of input gradients that are cropped"
PADDING = "padding that input gradients execute"
OTHER_GROUPS = "weight gradients between channels of different groups"
FLOPS = "2 FLOPs a MAC"


def take_step(model: nn.Module, inputs: Sequence[Any]) -> None:
    """A forward pass, and the backward pass of the sum of all its outputs that have a gradient."""
    outputs = [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor) and leaf.requires_grad]
    torch.stack([output.sum() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]


def training_step(model: nn.Module, inputs: tuple[Any, ...], launches: Iterable[Launch]) -> ToolReport:
    """Account for what FlopCounterMode says of :func:`take_step`.

    Args:
        model: the model itself, not instrumented; a copy of it takes the step.
        inputs: its positional arguments.
        launches: what was counted of such a step.

    Returns:
        The report; its terms are in FLOPs. Transposed convolutions have no terms, their crops stay unexplained.

    Raises:
        NotCopyableError: the model cannot be copied.
    """
    with quiet(model), torch.enable_grad():
        spoilable, arguments = copy_of(model, inputs)
        for original, copied in zip(tree_leaves(inputs), tree_leaves(arguments), strict=True):
            if isinstance(copied, Tensor):
                copied.requires_grad_(original.requires_grad)
        with _Conventions() as conventions, FlopCounterMode(display=False) as mode:
            take_step(spoilable, arguments)
    recorded = list(launches)
    padding = sum(launch.counters.pad for launch in recorded if launch.phase == BACKWARD_INPUT)
    macs = {COUNTED: sum(launch.counters.mul for launch in recorded), **conventions.macs, PADDING: -padding}
    macs[FLOPS] = sum(macs.values())
    terms = tuple(Term(name, amount) for name, amount in macs.items() if amount)
    tool = torch_flop_counter.TOOL
    return ToolReport(
        name=tool.name,
        version=version(tool),
        unit=tool.unit,
        convention=f"{tool.convention}; forward and backward",
        reported=mode.get_total_flops(),
        ledger=terms,
        unexplained=mode.get_total_flops() - sum(term.amount for term in terms),
        error=None,
    )


class _Conventions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Works out of each operator's arguments what torch's formula for it says besides, or has none for, in MACs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        if is_fused_attention(packet) and packet not in flop_registry:
            is_gradient = str(packet).endswith("backward")
            # Two products forward, and a gradient of each of their factors.
            products = 2 * attention_macs(*args[1:4]) if is_gradient else attention_macs(*args[:3])
            self.macs[ATTENTION] -= products
        elif packet is torch.ops.aten.convolution_backward and not args[7]:
            self._note_gradients(*args)
        return func(*args, **kwargs or {})

    def _note_gradients(
        self,
        grad: Tensor,
        input: Tensor,
        weight: Tensor,
        _: Any,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        __: bool,
        ___: Any,
        groups: int,
        output_mask: Sequence[bool],
    ) -> None:
        taps = grad.numel() * weight[0].numel()
        if output_mask[0]:
            inside = taps_inside(input.shape[2:], grad.shape[2:], weight.shape[2:], stride, dilation, padding)
            self.macs[CROPPED] += taps - grad.shape[:2].numel() * weight.shape[1] * inside
        if output_mask[1]:
            self.macs[OTHER_GROUPS] += (groups - 1) * taps
