"""What steps from tap to tap cost a convolution: the share of multiply-adds in what it executes.

``python -m benchmarks.taps`` executes 3x3 convolutions of few and many channels, one of a large kernel, as the gradient
of a weight has, and a product, on the PTX machine, and writes ``benchmarks/taps.json``. benchmarks/sass.py reads a loop
in machine code, and so cannot tell how often a convolution leaves it; here every instruction counts, but of PTX, which
has more of them than machine code.
"""

from __future__ import annotations

import json
from pathlib import Path

from flopcuda import ptx
from flopcuda.ptx_backend import MachineBackend
from tests.cpu_kernels.oracle import ConvCase, LinearCase
from tests.cuda_kernels import can_compute, plan_case, tensors_of

RESULTS = Path(__file__).parent / "taps.json"
CHANNELS = (64, 128, 256)
# Tiles of both operations, and what one of their instructions multiplies for each lane of a warp.
KERNELS = {"f16_128x128x32": 64, "tf32_128x128x16": 32, "f32_64x64x16": 1}


def convolution(channels: int, kernel_height: int) -> ConvCase:
    """128 x 128 outputs, like the others here."""
    pad = kernel_height // 2
    return ConvCase(1, channels, (16, 8), 128, (kernel_height, 3), padding=(pad, kernel_height - 1 - pad, 1, 1))


def large_kernel(channels: int) -> ConvCase:
    return ConvCase(1, channels, (16 + 29, 8 + 29), 128, (32, 32), padding=(1, 1, 1, 1))


def executed(machine: MachineBackend, kernel: str, case: ConvCase | LinearCase) -> tuple[int, int]:
    """Multiply-adds of all lanes, and instructions of all lanes."""
    layout = {"gathers_width": False} if isinstance(case, ConvCase) else {}
    name = f"{kernel}_many_taps" if isinstance(case, ConvCase) and not can_compute(kernel, case) else kernel
    result = machine.launch(plan_case(case, tensors_of(case, name), name, **layout))
    return sum(result.fma_lanes.values()), result.lane_instructions


def share(kernel: str, macs: int, shorter: ConvCase | LinearCase, longer: ConvCase | LinearCase) -> float:
    """Of the main loop alone: of what the longer reduction executes beyond the shorter one."""
    machine = MachineBackend(ptx.Machine())
    few, many = (executed(machine, kernel, case) for case in (shorter, longer))
    return (many[0] - few[0]) / macs / (many[1] - few[1])


def measure(tile: str) -> dict[str, object]:
    """Shares of a product's main loop, and of a convolution's by its channels."""
    macs, convolve = KERNELS[tile], f"flopcuda_conv_{tile}"
    return {
        "tile": tile,
        "product": share(f"flopcuda_linear_{tile}", macs, LinearCase(128, 1152, 128), LinearCase(128, 2304, 128)),
        "convolutions": [
            {
                "channels": channels,
                "share": share(convolve, macs, convolution(channels, 3), convolution(channels, 6)),
            }
            for channels in CHANNELS
        ],
        "large_kernel": share(convolve, macs, large_kernel(32), large_kernel(64)),
    }


def sentence(measured: dict[str, object]) -> str:
    """For the README."""
    texts = [
        f"{row['tile'].split('_')[0]}, "
        + ", ".join(f"{entry['share']:.2f} at {entry['channels']} channels" for entry in row["convolutions"])
        + f", {row['large_kernel']:.2f} of 32x32 taps, a product's {row['product']:.2f}"
        for row in measured["kernels"]
    ]
    return (
        "With its steps from tap to tap, the share of multiply-adds in the PTX that a 3x3 convolution's main loop "
        f"executes (`python -m benchmarks.taps`): {'; '.join(texts)}."
    )


if __name__ == "__main__":
    RESULTS.write_text(json.dumps({"kernels": [measure(tile) for tile in KERNELS]}, indent=2) + "\n")
