"""The machine's own limits, measured by machine_peak.cpp: fused multiply-adds in registers and bytes from memory."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")
PROGRAM = "machine_peak"


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


def measure_peak(threads: int, rounds: int = 7) -> Peak:
    """Run the loops on so many threads; the best of so many rounds of each.

    Raises:
        subprocess.CalledProcessError: the compiler, or what it made, failed.
    """
    command = [str(Path(_program_folder().name) / PROGRAM), str(threads), str(rounds)]
    measured = subprocess.run(command, check=True, capture_output=True, text=True)
    return Peak(**json.loads(measured.stdout))


@cache
def _program_folder() -> tempfile.TemporaryDirectory[str]:
    """Where the loops are, compiled for this machine; it goes with this process."""
    folder = tempfile.TemporaryDirectory()
    options = ["-O3", "-march=native", "-ffp-contract=fast", "-pthread"]
    compiler = os.environ.get("CXX", "c++")
    subprocess.run([compiler, *options, str(SOURCE), "-o", str(Path(folder.name) / PROGRAM)], check=True)
    return folder
