"""FlopCounterMode's number for a training step, and the ledger that leads to it from what was counted.

Its formulas (torch/utils/flop_counter.py) differ from what is executed in these ways: fused attention and recurrent
layers on the CPU have none, nor has ``Bilinear``; a transposed convolution, and the gradient of a convolution's input,
which is one, is taken for every tap of every window, also those that reach beyond the image and are cropped, where the
kernels skip those and may execute some of their own padding; and the gradient of a grouped convolution's weight is
taken for every pair of channels, also of different groups; and causal attention is taken for dense.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from flopcuda.geometry import skipped_products
from flopcuda.gradients import BACKWARD_INPUT, FORWARD, befores
from flopcuda.report import Launch
from flopcuda.swapping import COUNTED_LAYERS
from flopcuda.tools import torch_flop_counter
from flopcuda.tools.convolutions import ConvolutionCalls, Convolutions, products, terms_of_transposed
from flopcuda.tools.installed import version
from flopcuda.tools.kinds import SKIPPED
from flopcuda.tools.ledger import COUNTED, added_up, not_seen
from flopcuda.tools.report import Term, ToolReport
from flopcuda.tools.running import running_modules
from flopcuda.tools.sandbox import copy_of, quiet
from flopcuda.tools.tool import products_by_module
from flopcuda.tools.unseen import attention_macs, is_fused_attention

ATTENTION = "not seen: fused attention and its gradients"
CROPPED_GRADIENTS = "taps of input gradients that are cropped"
PADDED_GRADIENTS = "padding that input gradients execute"
OTHER_GROUPS = "weight gradients between channels of different groups"
ONLY_PADDING = "weight gradients of padding only"
FLOPS = "2 FLOPs a MAC"


def take_step(model: nn.Module, inputs: Sequence[Any]) -> None:
    """A forward pass, and the backward pass of the sum of all its outputs that have a gradient.

    Raises:
        ValueError: none of them has one.
    """
    outputs = [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not outputs:
        raise ValueError(f"no output of {type(model).__name__} has a gradient, so there is no training step to take")
    torch.stack([output.sum() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]


@contextmanager
def trainable_copy(model: nn.Module, inputs: tuple[Any, ...]) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
    """A copy of a model and its inputs that may take a step, in silence and without a trace.

    Raises:
        NotCopyableError: the model cannot be copied.
    """
    with quiet(model), torch.enable_grad():
        copied, arguments = copy_of(model, inputs)
        for original, argument in zip(tree_leaves(inputs), tree_leaves(arguments), strict=True):
            if isinstance(argument, Tensor):
                argument.requires_grad_(original.requires_grad)
        yield copied, arguments


def training_step(model: nn.Module, inputs: tuple[Any, ...], launches: Iterable[Launch]) -> ToolReport:
    """Account for what FlopCounterMode says of :func:`take_step`.

    Args:
        model: the model itself, not instrumented; a copy of it takes the step.
        inputs: its positional arguments.
        launches: what was counted of such a step.

    Returns:
        The report; its terms are in FLOPs.

    Raises:
        NotCopyableError: the model cannot be copied.
        ValueError: no output of it has a gradient.
    """
    mode = FlopCounterMode(display=False)
    charges = torch_flop_counter.Charges(mode)
    with (
        trainable_copy(model, inputs) as (copied, arguments),
        running_modules(copied, before_change=charges) as running,
    ):
        convolutions, conventions = ConvolutionCalls(running), _Conventions(copied, running)
        with convolutions, conventions, mode:
            take_step(copied, arguments)
    forward = products_by_module(charges.figures)
    seen = {name for name, amount in forward.items() if amount} | conventions.attending
    recorded = list(launches)
    macs = [
        Term(COUNTED, sum(launch.counters.mul for launch in recorded)),
        *_terms_of_modules(recorded, seen, convolutions.seen),
        *(Term(name, amount) for name, amount in conventions.macs.items()),
    ]
    terms = added_up([*macs, Term(FLOPS, sum(term.amount for term in macs))])
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


def _terms_of_modules(launches: Iterable[Launch], seen: set[str], convolutions: Convolutions) -> Iterator[Term]:
    """For each module what is known of it from its launches and its forward pass."""
    by_module = defaultdict[str, list[Launch]](list)
    for launch in launches:
        by_module[launch.module].append(launch)
    for name in dict.fromkeys((*by_module, *convolutions)):
        own = by_module[name]
        if name not in seen:
            yield from (not_seen(name, launch.module_type, launch.counters.mul) for launch in own)
            continue
        pads = Counter[str]()
        for launch in own:
            pads[launch.phase] += launch.counters.pad
            yield Term(SKIPPED, skipped_products(launch))
        yield from terms_of_transposed(pads[FORWARD], convolutions.get(name, ()), by_output=False)
        yield Term(PADDED_GRADIENTS, -pads[BACKWARD_INPUT])


def _pads_to_same(module: nn.Module) -> bool:
    """Whether a counted layer may have torch write zeros into a larger image, which the kernels count as padding."""
    return isinstance(module, tuple(COUNTED_LAYERS)) and getattr(module, "padding", None) == "same"


class _Conventions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Works out of each operator's arguments what torch's formula for it says besides, or has none for, in MACs.

    Args:
        model: the model that takes the step.
        running: names of the running modules, innermost last.

    Attributes:
        macs: what it found, by the name of a term.
        attending: modules that call fused attention.
    """

    def __init__(self, model: nn.Module, running: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._running = running
        self._same = {name for name, module in model.named_modules() if _pads_to_same(module)}
        self._padded: dict[int, tuple[Tensor, Tensor, Sequence[int]]] = {}
        self.macs: Counter[str] = Counter()
        self.attending: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        result = func(*args, **kwargs or {})
        if is_fused_attention(packet) and packet not in flop_registry:
            self._note_attention(args, is_gradient=str(packet).endswith("backward"))
        elif packet is torch.ops.aten.constant_pad_nd and self._running[-1] in self._same:
            # Kept, so that no other tensor gets its address.
            self._padded[result.data_ptr()] = (result, args[0], befores(args[1]))
        elif packet is torch.ops.aten.convolution_backward:
            self._note_gradients(*args)
        return result

    def _note_attention(self, args: tuple[Any, ...], *, is_gradient: bool) -> None:
        """Two products forward, and a gradient of each of their factors."""
        if is_gradient:
            self.macs[ATTENTION] -= 2 * attention_macs(*args[1:4])
        else:
            self.attending.add(self._running[-1])
            self.macs[ATTENTION] -= attention_macs(*args[:3])

    def _note_gradients(
        self,
        grad: Tensor,
        input: Tensor,
        weight: Tensor,
        _: Any,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        __: Any,
        groups: int,
        output_mask: Sequence[bool],
    ) -> None:
        if input.data_ptr() in self._padded:
            _, input, before = self._padded[input.data_ptr()]
            padding = [zeros + more for zeros, more in zip(padding, before, strict=True)]
        image, windows = (grad, input) if transposed else (input, grad)
        found = products(image, windows, weight, stride, padding, dilation)
        if output_mask[0]:
            # That of a transposed convolution is a convolution: torch's formula has its padding, too.
            self.macs[PADDED_GRADIENTS if transposed else CROPPED_GRADIENTS] += found.outside
        if output_mask[1]:
            self.macs[OTHER_GROUPS] += (groups - 1) * found.of_windows
            self.macs[ONLY_PADDING] += 0 if found.reach_image else found.of_windows
