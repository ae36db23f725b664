"""Whole models on the CPU, instrumented beside original: time, training step, zero counting, memory and scaling."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

import flopcuda
from benchmarks.side_by_side import paired_ratios, paired_times
from flopcuda import module_calls

SIZE = 224
MODELS = {"resnet50": 4, "vgg16": 2, "vit_b_16": 2, "mobilenet_v2": 4, "convnext_tiny": 2, "densenet121": 2}
TRAINED, TRAINING_BATCH = "resnet18", 4
SCALED, BATCHES, SIZES = "resnet50", (1, 4, 16, 32), (64, 128, 224, 512)
MEMORY_BATCH = 32


def make_model(name: str) -> nn.Module:
    """A torchvision model with random weights, in eval mode."""
    return torchvision.models.get_model(name, weights=None).eval()


def make_images(batch: int, size: int = SIZE) -> Tensor:
    return torch.randn(batch, 3, size, size)


def summary(ratios: list[float]) -> dict[str, Any]:
    """Median and range of paired ratios, and they themselves."""
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "ratios": ratios}


@contextmanager
def plain_torch() -> Iterator[None]:
    """Inside, models run as if no session were open: it would see, and so slow, those that it does not count, too.

    Nobody is told of calls of modules, which costs each of them some 0.1 us still, and no dispatch mode sees operators.
    """
    watchers = module_calls._watchers
    module_calls._tell(())
    try:
        with _disable_current_modes():  # type: ignore[no-untyped-call]
            yield
    finally:
        module_calls._tell(watchers)


def _plainly(run: Callable[[], object]) -> Callable[[], None]:
    """Runs it in :func:`plain_torch`, whose beginning and end take some 20 us."""

    def plain() -> None:
        with plain_torch():
            run()

    return plain


@dataclass(frozen=True)
class Pair:
    """The same model twice, once to be instrumented, and its images."""

    name: str
    original: nn.Module
    counted: nn.Module
    images: Tensor

    def ratio(self) -> float:
        """Instrumented time over original time of a forward pass without gradients.

        Of the third one in a session: the second one keeps what it packs of the weights.
        """
        with torch.no_grad(), flopcuda.instrument(self.counted):
            plain = _plainly(lambda: self.original(self.images))
            return paired_ratios(lambda: self.counted(self.images), plain, 2)[-1]


def inference(rounds: int) -> list[dict[str, Any]]:
    """The ratios of all models at their batch and at one image, a round of each in turn.

    What a machine's neighbours do for some seconds is then in few rounds of each, not in all of one.
    """
    pairs = []
    for name, batch in MODELS.items():
        models = make_model(name), make_model(name)
        pairs += [Pair(name, *models, make_images(size)) for size in dict.fromkeys((batch, 1))]
    ratios: list[list[float]] = [[] for _ in pairs]
    for _ in range(rounds):
        for pair, seen in zip(pairs, ratios, strict=True):
            seen.append(pair.ratio())
    return [
        {"model": pair.name, "batch": len(pair.images), **summary(seen)}
        for pair, seen in zip(pairs, ratios, strict=True)
    ]


def training_step(rounds: int) -> dict[str, Any]:
    """Instrumented time over original time of forward and backward pass and an SGD step."""
    original, counted, images = make_model(TRAINED).train(), make_model(TRAINED).train(), make_images(TRAINING_BATCH)
    with flopcuda.instrument(counted):
        ratios = paired_ratios(_step(counted, images), _plainly(_step(original, images)), rounds)
    return {"model": TRAINED, "batch": TRAINING_BATCH, **summary(ratios)}


def _step(model: nn.Module, images: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(images).sum().backward()
        optimizer.step()

    return step


def zero_counting(name: str, batch: int, rounds: int) -> dict[str, Any]:
    """Time with zero products counted over time without."""
    plain, zero, images = make_model(name), make_model(name), make_images(batch)
    with torch.no_grad(), flopcuda.instrument(plain), flopcuda.instrument(zero, count_zero=True):
        ratios = paired_ratios(lambda: zero(images), lambda: plain(images), rounds)
    return {"model": name, "batch": batch, **summary(ratios)}


def scaled_inputs() -> Iterator[tuple[int, int]]:
    """Batches and image sizes: small images also as many as have the pixels of one of :data:`SIZE`.

    A model's weights come from memory for each batch, which few pixels wait for, however fast they are multiplied.
    """
    yield from ((batch, SIZE) for batch in BATCHES)
    for size in SIZES:
        if size != SIZE:
            yield from ((batch, size) for batch in dict.fromkeys((1, max(1, SIZE**2 // size**2))))


def scaling(rounds: int) -> list[dict[str, Any]]:
    """Seconds a MAC of the instrumented and the original model, over batches and over image sizes."""
    original, counted = make_model(SCALED), make_model(SCALED)
    rows = []
    for batch, size in scaled_inputs():
        images = make_images(batch, size)
        with torch.no_grad(), flopcuda.instrument(counted) as session:
            plainly = _plainly(lambda x=images: original(x))
            ours, theirs = paired_times(lambda x=images: counted(x), plainly, rounds)
            macs = session.report().total.counters.macs // (rounds + 1)
        times = {"seconds_per_mac": statistics.median(ours) / macs, "original": statistics.median(theirs) / macs}
        rows.append({"model": SCALED, "batch": batch, "size": size, **times})
    return rows


def memory() -> dict[str, Any]:
    """Peak resident bytes of a process that runs the instrumented model, and of one that runs the original."""
    counted, original = (_in_new_process(instrumented) for instrumented in (True, False))
    return {
        "model": SCALED,
        "batch": MEMORY_BATCH,
        "bytes": counted,
        "original_bytes": original,
        "ratio": counted / original,
    }


def _in_new_process(instrumented: bool) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_bytes, (instrumented,))


def _peak_bytes(instrumented: bool) -> int:
    model, images = make_model(SCALED), make_images(MEMORY_BATCH)
    with torch.no_grad():
        if instrumented:
            with flopcuda.instrument(model):
                model(images)
        else:
            model(images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
