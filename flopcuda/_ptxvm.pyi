# Types of the extension module that csrc/ptxvm/bind.cpp defines; flopcuda.ptx is its public face.
from typing import Any

check_names: list[str]
opcodes: list[str]

class PtxError(RuntimeError):
    kernel: str
    line: int
    text: str

class Module:
    kernels: list[dict[str, Any]]
    variables: list[tuple[str, str, int, int]]
    version: str
    target: str
    def __init__(self, text: str) -> None: ...
    def launch(
        self,
        *,
        name: str,
        parameters: bytes,
        allocations: list[tuple[int, int, bool, str]],
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        threads: int,
        seed: int | None,
        checks: int,
        budget: int,
        cooperative: bool,
    ) -> dict[str, Any]: ...

def lane_instruction_set() -> str: ...
def set_lane_instruction_set(name: str) -> bool: ...
