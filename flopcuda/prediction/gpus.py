"""The GPUs that times are predicted for, with what NVIDIA publishes of them.

Sources, by GPU:

- A100 SXM 80 GB: "NVIDIA A100 Tensor Core GPU Architecture" (whitepaper): 108 multiprocessors, boost clock 1410 MHz,
  40 MB of L2; "NVIDIA A100 80GB" (data sheet): 2,039 GB/s.
- H100 SXM: "NVIDIA H100 Tensor Core GPU Architecture" (whitepaper): 132 multiprocessors, boost clock 1980 MHz, or 1830
  MHz while tensor cores multiply 16-bit numbers and TF32, 50 MB of L2, 3,352 GB/s.
- L4: "NVIDIA L4 Tensor Core GPU" (data sheet): 30.3 TFLOPS of float32 and 121 of dense float16, 300 GB/s; "NVIDIA Ada
  GPU Architecture" (whitepaper): 58 multiprocessors, 2040 MHz, 48 MB of L2.
- RTX 4090: "NVIDIA Ada GPU Architecture" (whitepaper): 128 multiprocessors, 2520 MHz, 72 MB of L2, 1,008 GB/s.

Multiply-adds a cycle of a multiprocessor are :func:`flopcuda._C.device_rates`, whose sources csrc/cuda/device.cpp has:
half of the L4's for the RTX 4090's tensor cores, as for any GeForce card's. Shared memory, warps and blocks of a
multiprocessor are those of :mod:`flopcuda.kernels.occupancy`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from flopcuda import _C
from flopcuda.kernels.occupancy import MULTIPROCESSORS, Multiprocessor

#: What multiplies, in the order of :func:`flopcuda._C.device_rates`.
UNITS = tuple(_C.UNITS)


@dataclass(frozen=True)
class GPU:
    """One kind of GPU.

    Attributes:
        name: for people.
        architecture: "sm_80".
        multiprocessors: how many it has.
        hertz: boost clock.
        tensor_hertz: boost clock while tensor cores multiply 16-bit numbers and TF32.
        bandwidth: of its memory, in bytes a second.
        l2_bytes: of its second-level cache.
        product: its name as the CUDA runtime says it, which tells apart what tensor cores of one architecture reach.
    """

    name: str
    architecture: str
    multiprocessors: int
    hertz: float
    tensor_hertz: float
    bandwidth: float
    l2_bytes: int
    product: str = ""

    @cached_property
    def rates(self) -> dict[str, float]:
        """Multiply-adds a cycle of one multiprocessor, by unit."""
        return dict(zip(UNITS, _C.device_rates(self.capability, self.product), strict=True))

    @property
    def capability(self) -> int:
        """Times ten: 80."""
        return int(re.sub(r"\D", "", self.architecture))

    @property
    def limits(self) -> Multiprocessor:
        """Warps, blocks and shared memory that one multiprocessor holds."""
        return MULTIPROCESSORS[self.architecture]

    def clock(self, unit: str) -> float:
        """In hertz, while this unit multiplies."""
        return self.tensor_hertz if _is_narrow(unit) else self.hertz

    def multiply_adds_per_second(self, unit: str) -> float:
        """Of all multiprocessors, at the boost clock."""
        return self.multiprocessors * self.rates[unit] * self.clock(unit)


def _is_narrow(unit: str) -> bool:
    return unit in ("mma_f16", "mma_tf32")


_MB = 1 << 20

GPUS = {
    "a100": GPU("A100 SXM 80 GB", "sm_80", 108, 1.41e9, 1.41e9, 2.039e12, 40 * _MB, "NVIDIA A100-SXM4-80GB"),
    "h100": GPU("H100 SXM", "sm_90", 132, 1.98e9, 1.83e9, 3.352e12, 50 * _MB, "NVIDIA H100 80GB HBM3"),
    "l4": GPU("L4", "sm_89", 58, 2.04e9, 2.04e9, 300e9, 48 * _MB, "NVIDIA L4"),
    "rtx4090": GPU("RTX 4090", "sm_89", 128, 2.52e9, 2.52e9, 1.008e12, 72 * _MB, "NVIDIA GeForce RTX 4090"),
}
