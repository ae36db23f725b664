"""What the virtual device recorded in this process: launches, defects of kernels, functions of CUDA's that it lacks."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flopcuda.ptx import Finding


@dataclass(frozen=True)
class LaunchRecord:
    """One kernel that the machine executed; its last 10,000 are kept. Numbers are as in :mod:`flopcuda.ptx`."""

    kernel: str
    device: int
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int  #: dynamic
    seconds: float  #: wall time of the machine, which says nothing of a GPU's
    lane_instructions: int
    warp_instructions: int
    fma_lanes: Mapping[str, int]  #: multiply-adds by operand type
    global_requests: int
    global_sectors: int
    shared_requests: int
    shared_wavefronts: int
    bank_conflicts: int
    branches: int
    diverged_branches: int
    barriers: int
    findings: int


def launches() -> list[LaunchRecord]:
    """The kernels that were executed, oldest first."""
    return [LaunchRecord(**_with_tuples(record)) for record in _read("launches_json")["launches"]]


def findings() -> list[Finding]:
    """What the checks found in the kernels that were executed, oldest first."""
    records = [_with_tuples(record) for record in _read("findings_json")]
    return [Finding(**{name: value for name, value in record.items() if name != "device"}) for record in records]


def unsupported_functions() -> list[str]:
    """Functions of CUDA's that were called and that the virtual device answers with "not supported"."""
    names: list[str] = _read("unsupported")
    return names


def clear() -> None:
    """Forget all that was recorded so far."""
    _library().flopcuda_vcuda_clear()


def exit_with_findings() -> None:
    """At the end of a process: print what the checks found, and make the exit status 1 if that is anything."""
    found = findings()
    if not found:
        return
    sys.stdout.flush()
    print(f"flopcuda virtual CUDA: {len(found)} defects were found in kernels", file=sys.stderr)
    for finding in found:
        print(f"  {finding}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)  # An exit handler has no other way to change the status; this one runs last.


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _read(name: str) -> Any:
    function = getattr(_library(), f"flopcuda_vcuda_{name}")
    function.restype = ctypes.c_char_p
    return json.loads(function())


def _with_tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
