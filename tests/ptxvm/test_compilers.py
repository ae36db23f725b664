"""PTX as several compilers write it, from one source, loaded and run against numpy and Python.

tests/ptxvm/ptx keeps what nvrtc 12.1 to 12.9 and nvcc 13.5 made of sources/language.cu (its README says how), so that
it is tested where they are not; the nvcc that is installed compiles it anew.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm.harness import compile_cuda, needs_nvcc, source

KEPT = sorted((Path(__file__).parent / "ptx").glob("*.ptx"))

Run = Callable[[ptx.Module], None]


class Affine(ctypes.Structure):
    _fields_ = (("scale", ctypes.c_double), ("offsets", ctypes.c_float * 3), ("shift", ctypes.c_byte))


def check(result: ptx.LaunchResult, got: np.ndarray, want: object) -> None:
    assert result.findings == []
    assert got.tolist() == np.asarray(want, got.dtype).tolist()


def structures(module: ptx.Module) -> None:
    n = 300
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    y = np.zeros(n, np.float32)
    affine = Affine(0.3, (ctypes.c_float * 3)(1.5, -2.25, 1e6), -7)
    result = module.launch("structures", 3, 128, [affine, bytes([1, 2, 3, 4, 250]), x, y, n])
    scaled = (x.astype(np.float64) * 0.3).astype(np.float32)
    offsets = np.float32([1.5, -2.25, 1e6])[np.arange(n) % 3]
    odd = np.float32([1, 2, 3, 4, 250])[np.arange(n) % 5]
    check(result, y, scaled + offsets + np.float32(-7) + odd)


def tables(module: ptx.Module) -> None:
    y = np.zeros(12, np.float32)
    result = module.launch("tables", 1, 12, [y])
    numbers, matrix = [10, 20, 30, 40], [[1.5, -2.0, 3.25], [0.5, 4.0, -0.75]]
    pointed, entries = [numbers[3], numbers[0], numbers[1]], [(ord("a"), numbers[1]), (ord("b"), numbers[2])]
    want = []
    for i in range(12):
        value = np.float32(pointed[i % 3]) + np.float32(matrix[i % 2][i % 3]) + np.float32(0.1 * i)
        want.append(value + np.float32(entries[i % 2][1]) + np.float32(entries[i % 2][0]))
    check(result, y, want)


def calls(module: ptx.Module) -> None:
    y = np.zeros(40, np.int32)
    result = module.launch("calls", 1, 40, [y])
    want = [[i + 7, i - 7, i * 7][i % 3] + [i * i, i * (i + 1), -i][i % 3] for i in range(40)]
    check(result, y, want)


@functools.cache
def ackermann(m: int, n: int) -> int:
    if m == 0:
        return n + 1
    return ackermann(m - 1, ackermann(m, n - 1) if n else 1)


def recursion_and_switch(module: ptx.Module) -> None:
    y = np.zeros(64, np.int32)
    result = module.launch("recursion_and_switch", 1, 64, [y])
    steps = [
        lambda v: v + 1,
        lambda v: v * 3,
        lambda v: v ^ 0x55,
        lambda v: v >> 2,
        lambda v: -v,
        lambda v: v | 9,
        lambda v: v & 0x3F,
        lambda v: v - 100,
        lambda v: v << 4,
    ]
    check(result, y, [ackermann(i % 3, i % 4) + steps[i % 9](i) for i in range(64)])


def reverse(module: ptx.Module) -> None:
    x = np.random.default_rng(1).integers(-1000, 1000, (3, 96)).astype(np.int32)
    y, sums = np.zeros_like(x), np.zeros(3, np.int32)
    result = module.launch("reverse", 3, 96, [x, y, sums], shared_bytes=4 * 96)
    check(result, y, x[:, ::-1])
    check(result, sums, x.sum(1))


def wide(module: ptx.Module) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.integers(0, 2**64, 32, np.uint64) >> rng.integers(0, 64, 32, np.uint64) for _ in range(2))
    y = np.zeros(96, np.uint64)
    result = module.launch("wide", 1, 32, [a, b, y])
    want = []
    for p, q in zip(a.tolist(), b.tolist(), strict=True):
        want += [p * q >> 64, p // (q | 1), p % (q | 1) + p.bit_count() + 64 - q.bit_length()]
    check(result, y, np.array(want, np.uint64))


RUNS: tuple[Run, ...] = (structures, tables, calls, recursion_and_switch, reverse, wide)


@functools.cache
def kept(path: Path) -> ptx.Module:
    return ptx.Machine(threads=1).load(path.read_text())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept(path: Path, run: Run) -> None:
    run(kept(path))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_says_its_origin(path: Path) -> None:
    """File names are those of the text: language_<compiler>_<target>."""
    _, compiler, *target = path.stem.split("_")
    assert f"release {compiler}," in path.read_text()
    assert kept(path).target == "_".join(target[:2])
    assert set(kept(path).kernels) == {run.__name__ for run in RUNS}


def test_lines_of_the_source() -> None:
    (path,) = [path for path in KEPT if path.stem.endswith("lineinfo")]
    y = np.zeros(64, np.int32)
    lines = kept(path).launch("recursion_and_switch", 1, 64, [y]).by_source_line()
    text = source("language.cu").splitlines()
    cases = {line for (_, line) in lines if text[line - 1].strip().startswith("case")}
    assert {name for name, _ in lines} == {"language.cu"}
    assert len(cases) == 8


@needs_nvcc
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
@pytest.mark.parametrize("flag", ["-O3", "-G", "-lineinfo"])
@pytest.mark.parametrize("architecture", ["compute_75", "compute_80", "compute_90a", "compute_100f", "compute_120"])
def test_compiled_here(architecture: str, flag: str, run: Run) -> None:
    run(compiled(architecture, flag))


@functools.cache
def compiled(architecture: str, flag: str) -> ptx.Module:
    return ptx.Machine(threads=1).load(compile_cuda(source("language.cu"), flag, architecture=architecture))
