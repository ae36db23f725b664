"""What the planner makes of what the CUDA runtime says of a device: the choices that it would make of data sheets."""

from __future__ import annotations

import random
from math import isfinite

import pytest
import torch

from flopcuda import _C
from flopcuda.ops import Device, KernelChoice, choose_kernel
from flopcuda.prediction import GPUS, predict_time
from flopcuda.prediction.gpus import UNITS
from flopcuda.prediction.layers import conversion_seconds, device_of, tiling_of, work_of
from flopcuda.prediction.model import BANDWIDTH_SHARE, LAUNCH_SECONDS
from tests.test_prediction import Problem, random_problem, resnet_problems

# By GPU, as the runtime says it: name, clock and memory clock in kHz, bits of the memory's bus.
SAID = {
    "a100": ("NVIDIA A100-SXM4-80GB", 1_410_000, 1_593_000, 5120),
    "h100": ("NVIDIA H100 80GB HBM3", 1_980_000, 2_619_000, 5120),
    "l4": ("NVIDIA L4", 2_040_000, 6_251_000, 192),
    "rtx4090": ("NVIDIA GeForce RTX 4090", 2_520_000, 10_501_000, 384),
}
ENTRIES = {entry["name"]: entry for entry in _C.cuda_kernels()}


def device_as_said(name: str) -> Device:
    """Occupancy is what the runtime and the model count alike."""
    product, kilohertz, memory_kilohertz, bits = SAID[name]
    gpu = GPUS[name]
    bandwidth = 2 * 1e3 * memory_kilohertz * bits / 8
    facts = _C.device_properties(product, gpu.capability, gpu.multiprocessors, 1e3 * kilohertz, bandwidth)
    return Device(**facts, resident_blocks=device_of(gpu).resident_blocks)


def loss_on_device(problem: Problem, name: str, tf32: bool) -> float:
    """Predicted seconds of what would be chosen on the device over those of what the model's planner chooses."""
    op, layer, images, options = problem
    output, gpu = layer(images), GPUS[name]

    def seconds(choice: KernelChoice) -> float:
        entry = ENTRIES[choice.name]
        work = work_of(op, (images, layer.weight, None), output, options.get("groups", 1), entry, choice)
        time = predict_time(work, tiling_of(choice.name, gpu), gpu, choice.splits)
        return time.seconds + conversion_seconds(op, (images, layer.weight, output), entry, choice, gpu)

    on_device, in_model = (
        choose_kernel(op, images, layer.weight, None, device=device, allow_tf32=tf32, **options)
        for device in (device_as_said(name), device_of(gpu))
    )
    return seconds(on_device) / seconds(in_model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", GPUS)
def test_what_a_device_chooses_is_as_fast_as_what_the_model_does(name: str, dtype: torch.dtype) -> None:
    generator = random.Random(0)
    problems = [*resnet_problems(dtype), *(random_problem(generator, dtype) for _ in range(200))]
    losses = [loss_on_device(problem, name, tf32=dtype == torch.float32) for problem in problems]
    assert max(losses) < 1.1


@pytest.mark.parametrize("name", GPUS)
def test_the_model_plans_as_the_device_does(name: str) -> None:
    """In cycles of its clock while tensor cores multiply, and with the share of the bandwidth that a copy reaches."""
    gpu, device = GPUS[name], device_of(GPUS[name])
    assert device.launch_cycles == pytest.approx(LAUNCH_SECONDS * gpu.tensor_hertz)
    bytes_per_second = device.memory_bytes * gpu.multiprocessors * gpu.tensor_hertz
    assert bytes_per_second == pytest.approx(BANDWIDTH_SHARE * gpu.bandwidth)
    said = device_as_said(name)
    assert said.rates == device.rates
    assert said.memory_bytes == pytest.approx(device.memory_bytes, rel=0.001)


@pytest.mark.parametrize(
    ("product", "capability", "multiprocessors", "hertz", "teraflops"),
    [
        ("NVIDIA GeForce RTX 3080", 86, 68, 1.71e9, 59.5),
        ("NVIDIA RTX A6000", 86, 84, 1.8e9, 154.8),
        ("NVIDIA GeForce RTX 4090", 89, 128, 2.52e9, 165.2),
        ("NVIDIA RTX 6000 Ada Generation", 89, 142, 2.505e9, 364.2),
        ("NVIDIA GeForce RTX 5090", 120, 170, 2.407e9, 209.5),
    ],
)
def test_tensor_cores_have_the_published_rates(
    product: str, capability: int, multiprocessors: int, hertz: float, teraflops: float
) -> None:
    """Dense float16 with float32 sums, in NVIDIA's whitepapers on GA102, Ada and the RTX Blackwell; TF32 is half."""
    rates = dict(zip(UNITS, _C.device_rates(capability, product), strict=True))
    assert 2 * multiprocessors * hertz * rates["mma_f16"] / 1e12 == pytest.approx(teraflops, rel=0.01)
    assert rates["mma_tf32"] == rates["mma_f16"] / 2
    assert rates["fma_f32"] == 128


@pytest.mark.parametrize(("hertz", "bandwidth"), [(0.0, 0.0), (0.0, 2.039e12), (1.41e9, 0.0)])
def test_an_a100_stands_for_what_is_not_said(hertz: float, bandwidth: float) -> None:
    product = SAID["a100"][0]
    expected = _C.device_properties(product, 80, 108, 1.41e9, 2.039e12)
    said = _C.device_properties(product, 80, 108, hertz, bandwidth)
    assert said.pop("rates") == expected.pop("rates")
    assert said == pytest.approx(expected)


def test_a_part_of_a_gpu_has_its_part_of_the_memory() -> None:
    whole, part = (_C.device_properties("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 80, count, 0, 0) for count in (108, 42))
    assert part == {**whole, "multiprocessors": 42}
    assert all(isfinite(part[field]) and part[field] > 0 for field in ("memory_bytes", "launch_cycles"))
