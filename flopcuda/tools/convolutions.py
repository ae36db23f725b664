"""The products of convolutions, transposed or not, by the two ways in which tools count them.

A convolution lays a window of taps on its image for each output. A transposed one does so for each input, and its image
is the output: each tap adds to it, those beyond its sides are cropped. Seen from the image, a tap reaches most pixels
of it from no window at all: as many products with zeros as the stride inserts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flopcuda.geometry import taps_inside
from flopcuda.tools.kinds import CROPPED, INSERTED_ZEROS, PADDING
from flopcuda.tools.report import Term
from flopcuda.tools.running import running_modules


@dataclass(frozen=True)
class Products:
    """Multiply-accumulates of one convolution.

    Attributes:
        of_windows: of every tap of every window.
        inside: those of them that fall on the image.
        of_pixels: of every tap for every pixel of the image.
        reach_image: whether not all windows lie in the padding before the image.
    """

    of_windows: int
    inside: int
    of_pixels: int
    reach_image: bool

    @property
    def outside(self) -> int:
        """Those of the windows that fall beside the image: on padding, or cropped."""
        return self.of_windows - self.inside

    @property
    def with_inserted_zeros(self) -> int:
        """Those of the pixels that no window reaches."""
        return self.of_pixels - self.inside


def products(
    image: Tensor,
    windows: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Products:
    """Of an image ``[batch, channels, ..]`` and a window for each position of ``[batch, channels, ..]``."""
    pixels, positions, taps = image.shape[2:], windows.shape[2:], weight.shape[2:]
    channels = windows.shape[0] * weight.shape[:2].numel()
    ends = zip(positions, taps, stride, dilation, strict=True)
    spans = [step * (count - 1) + apart * (tap - 1) + 1 for count, tap, step, apart in ends]
    return Products(
        of_windows=channels * positions.numel() * taps.numel(),
        inside=channels * taps_inside(pixels, positions, taps, stride, dilation, padding),
        of_pixels=channels * pixels.numel() * taps.numel(),
        reach_image=all(span > before for span, before in zip(spans, padding, strict=True)),
    )


@dataclass(frozen=True)
class Convolution:
    """A call of a convolution in a forward pass."""

    transposed: bool
    products: Products


# By the dotted name of the module that makes the calls.
Convolutions = Mapping[str, Sequence[Convolution]]


def convolutions_of(model: nn.Module, inputs: Sequence[Any]) -> Convolutions:
    """The convolutions of one forward pass."""
    with running_modules(model) as running:
        calls = ConvolutionCalls(running)
        with calls:
            model(*inputs)
    return calls.seen


def terms_of_transposed(pad: int, convolutions: Sequence[Convolution], *, by_output: bool) -> Iterator[Term]:
    """From the MACs that the kernels execute for transposed convolutions to those that a tool counts.

    Args:
        pad: what was counted of padding in all convolutions of a module.
        convolutions: those convolutions.
        by_output: whether the tool counts each tap for each output, instead of for each input.
    """
    transposed = [convolution.products for convolution in convolutions if convolution.transposed]
    if not transposed:
        return
    others = [convolution.products for convolution in convolutions if not convolution.transposed]
    yield Term(PADDING, sum(products.outside for products in others) - pad)
    if by_output:
        yield Term(INSERTED_ZEROS, sum(products.with_inserted_zeros for products in transposed))
    else:
        yield Term(CROPPED, sum(products.outside for products in transposed))


class ConvolutionCalls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the calls of convolutions.

    Args:
        running: names of the running modules, innermost last.
    """

    def __init__(self, running: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._running = running
        self.seen: defaultdict[str, list[Convolution]] = defaultdict(list)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **kwargs or {})
        if func.overloadpacket is torch.ops.aten.convolution:
            input, weight, _, stride, padding, dilation, transposed = args[:7]
            image, windows = (output, input) if transposed else (input, output)
            found = products(image, windows, weight, stride, padding, dilation)
            self.seen[self._running[-1]].append(Convolution(transposed, found))
        return output
