"""The main loop of each kernel in machine code (SASS), as cuobjdump disassembles it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Opcodes of a multiply-add, by what comes before the first dot.
MULTIPLY_ADDS = frozenset({"FFMA", "FFMA2", "HFMA2", "DFMA", "HMMA", "IMMA", "DMMA", "QMMA"})

_FUNCTION = re.compile(r"^\s*Function : (\w+)", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)\s*([^;]*);", re.MULTILINE)


@dataclass(frozen=True)
class Instruction:
    """One instruction: "FFMA" with the operands ("R1", "R2", "R3", "R1")."""

    address: int
    opcode: str  #: with its modifiers
    operands: tuple[str, ...]

    @property
    def mnemonic(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        match = re.fullmatch(r"0x([0-9a-f]+)", self.operands[-1]) if self.mnemonic == "BRA" else None
        return int(match[1], 16) if match else None

    @property
    def multiplies_and_adds(self) -> bool:
        """Whether it does; with a factor of zero (RZ) it is how ptxas likes to move a constant."""
        return self.mnemonic in MULTIPLY_ADDS and not any("RZ" in factor for factor in self.operands[1:3])


@dataclass(frozen=True)
class MainLoop:
    """The loop that multiplies most: from its first to its last address."""

    first: int
    last: int
    instructions: int
    multiply_adds: int

    @property
    def multiply_add_share(self) -> float:
        return self.multiply_adds / self.instructions


class NoDisassemblerError(RuntimeError):
    """There is no cuobjdump on this machine."""


def main_loops(binary: Path, architecture: str) -> dict[str, MainLoop]:
    """Main loops by kernel name, of those kernels in a file that have one.

    Raises:
        NoDisassemblerError: cuobjdump is not installed.
        RuntimeError: it did not understand the file; gives its words.
    """
    loops = {name: find_main_loop(code) for name, code in parse(disassemble(binary, architecture)).items()}
    return {name: loop for name, loop in loops.items() if loop}


def find_main_loop(code: list[Instruction]) -> MainLoop | None:
    """Of the loops with multiply-adds, those that hold no other of them; of these, the one with most multiply-adds."""
    loops = [loop for loop in _loops(code) if loop.multiply_adds]
    innermost = [loop for loop in loops if not any(_is_inside(other, loop) for other in loops)]
    return max(innermost, key=lambda loop: (loop.multiply_adds, -loop.instructions), default=None)


def parse(text: str) -> dict[str, list[Instruction]]:
    """Instructions by function, of the text that ``cuobjdump -sass`` prints."""
    pieces = _FUNCTION.split(text)
    return {name: list(_instructions(body)) for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def disassemble(binary: Path, architecture: str) -> str:
    """SASS of all kernels in an object file or library; the errors are those of :func:`main_loops`."""
    cuobjdump = find_tool("cuobjdump")
    if cuobjdump is None:
        raise NoDisassemblerError(
            "no cuobjdump in CUDA_HOME, on PATH or in the PyPI packages nvidia-cuda-cuobjdump and triton"
        )
    nvdisasm = find_tool("nvdisasm") or cuobjdump
    folders = [str(cuobjdump.parent), str(nvdisasm.parent), os.environ.get("PATH", "")]  # cuobjdump runs nvdisasm
    command = [str(cuobjdump), "-sass", "-arch", architecture, str(binary)]
    outcome = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": os.pathsep.join(folders)}
    )
    if outcome.returncode:
        raise RuntimeError(f"cuobjdump cannot read {binary.name} for {architecture}: {outcome.stderr.strip()}")
    return outcome.stdout


def find_tool(name: str) -> Path | None:
    """CUDA_HOME first, then PATH, then the PyPI packages that carry NVIDIA's disassembler."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home and (Path(home) / "bin" / name).is_file():
        return Path(home) / "bin" / name
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    packaged = (folder / name for folder in _packaged_folders())
    return next((path for path in packaged if path.is_file()), None)


def _packaged_folders() -> Iterator[Path]:
    for package, pattern in (("nvidia", "*/bin"), ("triton", "backends/nvidia/bin")):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            yield from sorted(Path(place).glob(pattern))


def _instructions(body: str) -> Iterator[Instruction]:
    for match in _INSTRUCTION.finditer(body):
        address, opcode, operands = match.groups()
        yield Instruction(int(address, 16), opcode, tuple(operand.strip() for operand in operands.split(",")))


def _loops(code: list[Instruction]) -> Iterator[MainLoop]:
    """A loop for each target of backward branches, up to the last of them."""
    last_branch: dict[int, int] = {}
    for instruction in code:
        target = instruction.target
        if target is not None and target <= instruction.address:
            last_branch[target] = instruction.address
    for first, last in last_branch.items():
        body = [instruction for instruction in code if first <= instruction.address <= last]
        yield MainLoop(first, last, len(body), sum(instruction.multiplies_and_adds for instruction in body))


def _is_inside(inner: MainLoop, outer: MainLoop) -> bool:
    return inner != outer and outer.first <= inner.first and inner.last <= outer.last
