"""What ptxas said of each kernel when the package was built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

#: Kernel and architecture: ("flopcuda_linear_f32_64x64x16", "sm_80").
Target = tuple[str, str]


@dataclass(frozen=True)
class Usage:
    """What a kernel uses on an architecture."""

    registers: int  #: of a thread
    shared_bytes: int  #: static, of a block
    stack_bytes: int  #: of a thread
    spill_store_bytes: int
    spill_load_bytes: int


_PATTERN = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'"
    r"(?:(?!Compiling entry).)*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r"(?:(?!Compiling entry).)*?"
    r"Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)


def parse_log(log: str) -> dict[Target, Usage]:
    """The log of ``ptxas -v``, which speaks of one kernel and architecture at a time."""
    return {
        (match["kernel"], match["architecture"]): Usage(
            *(int(match[name] or 0) for name in ("registers", "shared", "stack", "stores", "loads"))
        )
        for match in _PATTERN.finditer(log)
    }


@cache
def built_usage() -> Mapping[Target, Usage]:
    """From the log that the build left in the package; empty if it was built without nvcc."""
    log = resources.files("flopcuda") / "kernel_ptx" / "ptxas.log"
    return parse_log(log.read_text()) if log.is_file() else {}
