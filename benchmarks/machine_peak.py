"""The machine's own limits, measured by machine_peak.cpp: fused multiply-adds in registers and bytes from memory."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")


@dataclass(frozen=True)
class Peak:
    """Of all threads together.

    Attributes:
        flops: FLOPS of float32 multiply-adds that touch no memory.
        bytes_per_second: read from memory, far beyond any cache.
    """

    flops: float
    bytes_per_second: float

    def attainable(self, flops: float, byte_count: float) -> float:
        """FLOPS that the roofline allows to work of so many FLOPs over so many bytes."""
        return min(self.flops, flops / byte_count * self.bytes_per_second)


def measure_peak(threads: int) -> Peak:
    """Compile the loops for this machine and run them.

    Raises:
        subprocess.CalledProcessError: the compiler, or what it made, failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "machine_peak"
        options = ["-O3", "-march=native", "-ffp-contract=fast", "-pthread"]
        subprocess.run([os.environ.get("CXX", "c++"), *options, str(SOURCE), "-o", str(program)], check=True)
        measured = subprocess.run([str(program), str(threads)], check=True, capture_output=True, text=True)
    return Peak(**json.loads(measured.stdout))
