"""Builds the counted CPU kernels into a plain shared library, as they are or with defects, and calls them by ctypes.

No torch extension is involved: a defect compiles in seconds, and a build is kept in the temporary folder under a hash
of everything that went into it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tests.patches import Patch, apply_patches

CPU_SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "cpu"
COMMON_HEADERS = CPU_SOURCES.parent / "common"
C_API = Path(__file__).with_name("c_api.cpp")
COMMON_FLAGS = ("-std=c++17", "-fPIC", "-fopenmp", "-Wall", "-Wextra")
DEFAULT_FLAGS = ("-O3",)  # of files without flags of their own in isa_flags.json
BUILD_JOBS = 2
DTYPE_NAMES = {torch.float32: "f32", torch.float64: "f64"}


class Axis(ctypes.Structure):
    """Mirrors ``flopcuda::Axis``."""

    _fields_ = [(name, ctypes.c_int64) for name in ("in_size", "out_size", "kernel_size", "stride", "pad", "dilation")]

    out_size: int


class ConvProblem(ctypes.Structure):
    """Mirrors ``flopcuda::ConvProblem``."""

    in_channels: int

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "in_channels", "out_channels", "groups")),
        *((name, Axis) for name in ("depth", "height", "width")),
    ]

    @classmethod
    def of(
        cls,
        input: torch.Size,
        weight: torch.Size,
        output: torch.Size,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> ConvProblem:
        """From the shapes of the tensors, with two or three axes; padding is that before each axis."""
        sizes = (input[2:], output[2:], weight[2:], stride, padding, dilation)
        axes = [Axis(*values) for values in zip(*sizes, strict=True)]
        flat = [Axis(1, 1, 1, 1, 0, 1)] * (3 - len(axes))
        return cls(input[0], input[1], weight[0], groups, *flat, *axes)

    def output_shape(self, dimensions: int) -> tuple[int, ...]:
        """Of an output with so many, the last ones being axes."""
        axes = (self.depth, self.height, self.width)[5 - dimensions :]
        return (self.batch, self.out_channels, *(axis.out_size for axis in axes))


class LinearProblem(ctypes.Structure):
    """Mirrors ``flopcuda::LinearProblem``."""

    in_features: int

    _fields_ = [(name, ctypes.c_int64) for name in ("rows", "in_features", "out_features", "batch", "triangle")]


class Counters(ctypes.Structure):
    """Mirrors ``flopcuda::Counters``."""

    _fields_ = [(name, ctypes.c_int64) for name in ("mul", "add", "pad", "zero", "lane")]

    mul: int
    add: int
    pad: int
    zero: int
    lane: int


def _cache_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"flopcuda-cpu-kernels-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return folder


def _is_x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")


def patched_sources(patches: Sequence[Patch]) -> dict[str, str]:
    """Every source and header of csrc/cpu by file name, with the patches applied."""
    sources = {path.name: path.read_text() for path in sorted(CPU_SOURCES.iterdir()) if path.suffix in (".h", ".cpp")}
    return apply_patches(sources, patches)


def _included_headers(name: str, sources: dict[str, str]) -> set[str]:
    """The headers among ``sources`` that a file includes, directly or not."""
    headers: set[str] = set()
    unread = [name]
    while unread:
        for header in re.findall(r'^#include "(.+)"', sources[unread.pop()], re.MULTILINE):
            if header not in headers:
                headers.add(header)
                unread.append(header)
    return headers


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")


def compile_objects(patches: Sequence[Patch] = (), portable_only: bool = False) -> list[Path]:
    """Compiles csrc/cpu and the C interface, unless an earlier call has; returns the object files.

    Args:
        patches: changes of the sources, see ``Patch``.
        portable_only: leave the AVX kernels out, which takes half the time.

    Raises:
        ValueError: a patch does not fit the sources.
        RuntimeError: the compiler, ``$CXX`` or c++, fails.
    """
    compiler = os.environ.get("CXX", "c++")
    isa_flags: dict[str, list[str]] = json.loads((CPU_SOURCES / "isa_flags.json").read_text())
    sources = patched_sources(patches) | {C_API.name: C_API.read_text()}
    sources |= {f"../common/{path.name}": path.read_text() for path in COMMON_HEADERS.glob("*.h")}
    units = [name for name in sources if name.endswith(".cpp")]
    extra_flags: list[str] = []
    if portable_only or not _is_x86():
        units = [name for name in units if "avx" not in name]
        extra_flags.append("-DFLOPCUDA_PORTABLE_ONLY")

    objects, commands = [], []
    for name in units:
        flags = [*COMMON_FLAGS, *isa_flags.get(name, DEFAULT_FLAGS), *extra_flags]
        files = {file: sources[file] for file in sorted({name} | _included_headers(name, sources))}
        identity = json.dumps([compiler, flags, files])
        folder = _cache_folder() / hashlib.sha256(identity.encode()).hexdigest()[:24]
        object_file = folder / f"{name}.o"
        objects.append(object_file)
        if object_file.exists():
            continue
        tree = folder / "cpu"
        for file, content in files.items():
            path = tree / file
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}.tmp")  # another process may compile the same file now
            unfinished.write_text(content)
            unfinished.replace(path)
        commands.append((object_file, [compiler, *flags, f"-I{tree}", "-c", str(tree / name)]))

    def compile_one(job: tuple[Path, list[str]]) -> None:
        object_file, command = job
        unfinished = object_file.with_suffix(f".{os.getpid()}.tmp")
        _run([*command, "-o", str(unfinished)])
        unfinished.replace(object_file)  # so that an interrupted build leaves no broken object behind

    with ThreadPoolExecutor(BUILD_JOBS) as pool:
        list(pool.map(compile_one, commands))
    return objects


class Kernels:
    """The kernels of one build, called with torch tensors."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._functions: dict[tuple[str, str], Any] = {}
        self._library.flopcuda_isa_name.restype = ctypes.c_char_p
        pointer = ctypes.c_void_p
        kinds = [(op, dtype) for op in ("conv", "linear", "triangular") for dtype in DTYPE_NAMES.values()]
        for op, dtype in [*kinds, ("conv", "pairs"), ("linear", "pairs")]:
            function = self._library[f"flopcuda_{op}_{dtype}"]
            function.argtypes = [pointer, pointer, pointer, pointer, pointer, ctypes.c_int, pointer]
            self._functions[op, dtype] = function

    def isa_name(self, isa: int) -> str:
        name: bytes = self._library.flopcuda_isa_name(isa)
        return name.decode()

    @property
    def available_isas(self) -> list[str]:
        """Names of the instruction sets that this build and this CPU have."""
        return [self.isa_name(isa) for isa in range(self._library.flopcuda_best_isa() + 1)]

    @property
    def selected_isa(self) -> str:
        return self.isa_name(self._library.flopcuda_selected_isa())

    def select_isa(self, name: str) -> None:
        """Raises ValueError if this build or this CPU lacks it."""
        for isa in range(3):
            if self.isa_name(isa) == name and self._library.flopcuda_select_isa(isa) == 0:
                return
        raise ValueError(f"cannot select the instruction set {name!r}")

    def set_num_threads(self, threads: int) -> None:
        self._library.flopcuda_set_num_threads(threads)

    def conv(
        self,
        problem: ConvProblem,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        count_zero: bool = False,
        counters: Counters | None = None,
    ) -> tuple[torch.Tensor, Counters]:
        """One convolution of float32 or float64 tensors.

        Returns:
            The output, with as many axes as the input, and ``counters`` (or fresh ones), added to.
        """
        shape = problem.output_shape(input.dim())
        return self._call("conv", problem, shape, input, weight, bias, count_zero, counters)

    def linear(
        self,
        problem: LinearProblem,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        count_zero: bool = False,
        counters: Counters | None = None,
    ) -> tuple[torch.Tensor, Counters]:
        """One linear layer of float32 or float64 tensors.

        Returns:
            The output ``[rows, out_features]``, and ``counters`` (or fresh ones), added to.
        """
        shape = (problem.rows, problem.out_features)
        return self._call("linear", problem, shape, input, weight, bias, count_zero, counters)

    def conv_of_pairs(
        self, problem: ConvProblem, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Counters]:
        """One convolution of bfloat16 tensors and a float32 bias.

        Returns:
            The output, float32, and the counters.
        """
        shape = problem.output_shape(input.dim())
        operands = _in_pairs(input, problem.groups), _in_pairs(weight), bias
        return self._call("conv", problem, shape, *operands, False, None, kind="pairs")

    def linear_of_pairs(
        self, problem: LinearProblem, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Counters]:
        """Likewise, one linear layer."""
        shape = (problem.rows, problem.out_features)
        operands = _in_pairs(input), _in_pairs(weight), bias
        return self._call("linear", problem, shape, *operands, False, None, kind="pairs")

    def triangular(
        self, problem: LinearProblem, input: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, Counters]:
        """A batch of products of which a triangle is wanted, ``[batch, rows, in_features]`` with the second transposed.

        Returns:
            The output ``[batch, rows, out_features]``, and the counters.
        """
        shape = (problem.batch, problem.rows, problem.out_features)
        return self._call("triangular", problem, shape, input, weight, None, False, None)

    def _call(
        self,
        op: str,
        problem: ctypes.Structure,
        shape: tuple[int, ...],
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        count_zero: bool,
        counters: Counters | None,
        kind: str | None = None,
    ) -> tuple[torch.Tensor, Counters]:
        for tensor in (input, weight) if bias is None else (input, weight, bias):
            if tensor.dtype != input.dtype or tensor.dtype not in DTYPE_NAMES or not tensor.is_contiguous():
                raise ValueError("the kernels take contiguous tensors of one dtype, float32 or float64")
        output = torch.full(shape, float("nan"), dtype=input.dtype)  # an output element that is not written shows
        counters = counters or Counters()
        bias_pointer = None if bias is None else bias.data_ptr()
        status = self._functions[op, kind or DTYPE_NAMES[input.dtype]](
            ctypes.byref(problem),
            input.data_ptr(),
            weight.data_ptr(),
            bias_pointer,
            output.data_ptr(),
            count_zero,
            ctypes.byref(counters),
        )
        if status != 0:
            raise MemoryError("the kernel ran out of memory")
        return output, counters


def _in_pairs(numbers: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """bfloat16 numbers that are neighbours on the second axis in one float32, the first in its lower half.

    The last one of a group's has a zero in its upper half, if they are odd.
    """
    words = numbers.contiguous().view(torch.int16).to(torch.int32).unflatten(1, (groups, -1))
    first, second = words[:, :, ::2], torch.zeros_like(words[:, :, ::2])
    second[:, :, : words.shape[2] // 2] = words[:, :, 1::2]
    return (first & 0xFFFF | second << 16).flatten(1, 2).contiguous().view(torch.float32)


def build_library(patches: Sequence[Patch] = (), portable_only: bool = False) -> Path:
    """The shared library of ``compile_objects``' files; same arguments and errors."""
    objects = compile_objects(patches, portable_only)
    identity = hashlib.sha256("\n".join(map(str, objects)).encode()).hexdigest()[:24]
    library = _cache_folder() / f"libflopcuda_cpu_{identity}.so"
    if not library.exists():
        unfinished = library.with_suffix(f".{os.getpid()}.tmp")
        compiler = os.environ.get("CXX", "c++")
        _run([compiler, "-shared", "-fopenmp", *map(str, objects), "-o", str(unfinished)])
        unfinished.replace(library)
    return library


def build_kernels(patches: Sequence[Patch] = (), portable_only: bool = False) -> Kernels:
    """The kernels as they are, or with seeded defects; same arguments and errors as ``compile_objects``."""
    return Kernels(build_library(patches, portable_only))
