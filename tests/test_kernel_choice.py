"""The choice of a kernel for a device that is described, not there: its waves, and that it heeds what it is told."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch

import flopcuda
from flopcuda import _C
from flopcuda.ops import Device, KernelChoice, choose_kernel

A100 = Device(108, _C.device_rates(80), [])


def choose_linear(rows: int, inputs: int, outputs: int, device: Device = A100, **more: object) -> KernelChoice:
    operands = torch.empty(rows, inputs, device="meta"), torch.empty(outputs, inputs, device="meta")
    return choose_kernel("linear", *operands, None, device=device, **more)


def busiest_by_dealing(blocks: int, multiprocessors: int) -> int:
    """Blocks of the multiprocessor that has most when each block goes to the one that has fewest."""
    held = [0] * multiprocessors
    for _ in range(blocks):
        held[held.index(min(held))] += 1
    return max(held)


def test_wave_efficiency_is_that_of_blocks_dealt_out_one_by_one() -> None:
    generator = random.Random(0)
    for _ in range(40):
        device = Device(generator.randint(1, 40), A100.rates, [])
        choice = choose_linear(generator.randint(1, 600), 8, generator.randint(1, 600), device)
        busiest = busiest_by_dealing(choice.blocks, device.multiprocessors)
        expected = Fraction(choice.blocks, busiest * device.multiprocessors)
        assert choice.wave_efficiency == pytest.approx(float(expected), rel=1e-12)


def test_the_tile_depends_on_how_many_multiprocessors_there_are() -> None:
    """Sixteen tiles of 128 x 128 keep 16 multiprocessors busy, and leave 92 of 108 idle."""
    assert choose_linear(512, 4096, 512, Device(16, A100.rates, [])).name == "flopcuda_linear_f32_128x128x16"
    assert choose_linear(512, 4096, 512).name == "flopcuda_linear_f32_64x64x16"


def test_the_tile_depends_on_how_fast_the_device_issues() -> None:
    """Small tiles waste fewer lanes here, but issue more of other instructions.

    These cost nothing where a multiply-add occupies its unit for two cycles.
    """
    two_cycles, one_cycle = (Device(108, _C.device_rates(capability), []) for capability in (80, 86))
    assert choose_linear(684, 4096, 3840, two_cycles).name == "flopcuda_linear_f32_64x64x16"
    assert choose_linear(684, 4096, 3840, one_cycle).name == "flopcuda_linear_f32_128x128x16"


@pytest.mark.parametrize(("capability", "has_tensor_cores"), [(80, True), (86, False), (89, False), (90, True)])
def test_tensor_cores_multiply_float64_where_there_are_such(capability: int, has_tensor_cores: bool) -> None:
    device = Device(108, _C.device_rates(capability), [])
    operands = [torch.empty(1024, 1024, device="meta", dtype=torch.float64) for _ in range(2)]
    assert ("_mma_" in choose_kernel("linear", *operands, None, device=device).name) == has_tensor_cores


def test_a_named_kernel_is_described_and_must_fit() -> None:
    choice = choose_linear(256, 64, 256, kernel="flopcuda_linear_f32_128x128x16")
    assert choice == KernelChoice("flopcuda_linear_f32_128x128x16", 4, 4 / 108)
    with pytest.raises(ValueError, match="is a kernel of another operation"):
        choose_linear(256, 64, 256, kernel="flopcuda_conv_f32_direct")
    with pytest.raises(RuntimeError, match="no CUDA kernel named nothing"):
        choose_linear(256, 64, 256, kernel="nothing")


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a device has 1 to 2147483647 multiprocessors and 5 rates, not 8 and 1"):
        choose_linear(8, 8, 8, Device(8, [64.0], []))


def test_rates_of_an_unknown_capability_are_those_of_the_last_known_one() -> None:
    assert _C.device_rates(88) == _C.device_rates(87)
    assert _C.device_rates(130) == _C.device_rates(120)


def test_a_launch_on_the_cpu_has_no_waves() -> None:
    with flopcuda.instrument(torch.nn.Linear(8, 8)) as session:
        session.model(torch.ones(2, 8))
    report = session.report()
    assert report.launches[0].wave_efficiency is None
    assert report.total.wave_efficiency is None
