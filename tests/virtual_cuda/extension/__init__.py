"""A third party's extension in the manner of pytorch/extension-cpp: kernels for CPU and CUDA, fakes, autograd."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import cpp_extension

from tests.ptxvm.harness import nvcc

FOLDER = Path(__file__).parent
BUILD = FOLDER.parents[2] / "build" / f"gate_sample-torch{torch.__version__}"


def load() -> Any:
    """Compile the extension with its kernels as PTX, and register its operators; returns ``torch.ops.gate_sample``."""
    dry_run = subprocess.run([str(nvcc()), "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True)
    toolkit = re.search(r"^#\$ TOP=(.*)$", dry_run.stderr, re.MULTILINE)
    assert toolkit
    cpp_extension.CUDA_HOME = str(Path(toolkit[1]).resolve())
    BUILD.mkdir(parents=True, exist_ok=True)
    headers = Path(torch.__file__).parents[1].glob("nvidia/*/include")  # of the libraries that the toolkit lacks
    cpp_extension.load(
        "gate_sample",
        [str(FOLDER / "gate.cpp"), str(FOLDER / "gate.cu")],
        extra_cuda_cflags=["-gencode=arch=compute_80,code=compute_80"],
        extra_include_paths=[str(folder) for folder in headers],
        build_directory=str(BUILD),
    )
    torch.library.register_fake("gate_sample::leaky_gate")(lambda a, b, slope: torch.empty_like(a))
    torch.library.register_fake("gate_sample::leaky_gate_backward")(
        lambda grad, a, b, slope: (torch.empty_like(a), torch.empty_like(b))
    )
    torch.library.register_autograd("gate_sample::leaky_gate", _backward, setup_context=_setup_context)
    return torch.ops.gate_sample


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, ctx.slope = inputs
    ctx.save_for_backward(a, b)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return (*torch.ops.gate_sample.leaky_gate_backward(grad, *ctx.saved_tensors, ctx.slope), None)
