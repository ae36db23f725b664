"""Loads the PTX texts on its standard input, each behind it a NUL byte, and runs what loads; prints how many did what.

A process of its own, so that a crash of the machine is one of this process.
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

from flopcuda import ptx

CHECKED = ptx.Machine(threads=1, budget=5_000)
SHUFFLED = ptx.Machine(threads=2, budget=5_000, seed=1, checks=False)


def refuse(error: ptx.PtxError, text: str) -> None:
    """An error names a line of the text, or the one after its end."""
    lines = text.split("\n")
    assert 1 <= error.line <= len(lines), error
    assert error.text in lines[error.line - 1], error


def arguments(kernel: ptx.Kernel) -> list[object]:
    """Arrays where pointers may be, small numbers elsewhere."""
    return [
        bytes(p.size) if p.is_struct else np.zeros(256, np.float32) if p.size == 8 else bytes([48, *bytes(p.size - 1)])
        for p in kernel.parameters
    ]


def launches(module: ptx.Module, kernel: ptx.Kernel) -> bool:
    """Whether the kernel ran; damage may have given it parameters or shared memory that do not fit."""
    try:
        module.launch(kernel.name, 2, min(kernel.max_threads or 65, 65), arguments(kernel), shared_bytes=128)
    except ptx.PtxError:
        return False
    return True


def try_text(text: str, tally: Counter[str]) -> None:
    try:
        modules = [machine.load(text) for machine in (CHECKED, SHUFFLED)]
    except ptx.PtxError as error:
        tally["refused"] += 1
        return refuse(error, text)
    tally["loaded"] += 1
    for module in modules:
        tally["launches"] += sum(launches(module, kernel) for kernel in module.kernels.values())
    return None


def main() -> None:
    tally: Counter[str] = Counter()
    for text in sys.stdin.buffer.read().split(b"\0")[:-1]:
        try_text(text.decode("latin-1"), tally)
    refused, loaded = tally["refused"], tally["loaded"]
    print(f"{refused + loaded} mutants: {refused} refused, {loaded} loaded, {tally['launches']} launches")


if __name__ == "__main__":
    main()
