"""What the build says when CUDA is wanted and can't be had, and what it leaves in the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch

from flopcuda import _C

ROOT = Path(__file__).parent.parent


def build(tmp_path: Path, **environment: str) -> str:
    """Start a build that must stop before it compiles anything; its last words."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path)]
    outcome = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
    return outcome.stderr.strip().splitlines()[-1]


def fake_toolkit(folder: Path, answer: str) -> Path:
    """A CUDA_HOME with a runtime of nothing, whose nvcc says ``answer``."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    nvcc.chmod(0o755)
    for file in ("include/cuda_runtime_api.h", "lib64/libcudart.so"):
        (folder / file).parent.mkdir()
        (folder / file).touch()
    return folder


def path_without_nvcc() -> str:
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / "nvcc").exists())


def test_a_wrong_wish_is_one_sentence(tmp_path: Path) -> None:
    assert build(tmp_path, FLOPCUDA_CUDA="yes") == "flopcuda: FLOPCUDA_CUDA must be 0, 1 or auto, not 'yes'"


@pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA is refused first")
def test_a_cuda_home_without_nvcc_is_one_sentence(tmp_path: Path) -> None:
    assert f"CUDA_HOME is {tmp_path}, but there is no bin/nvcc" in build(tmp_path, CUDA_HOME=str(tmp_path))


@pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA is refused first")
def test_no_nvcc_where_cuda_is_wanted_is_one_sentence(tmp_path: Path) -> None:
    packaged = list(Path(torch.__file__).parents[1].glob("nvidia/*/bin/nvcc"))
    if packaged or shutil.which(Path(sys.executable).name, path=path_without_nvcc()) is None:
        pytest.skip("nvcc can't be hidden here")
    words = build(tmp_path, FLOPCUDA_CUDA="1", CUDA_HOME="", CUDA_PATH="", PATH=path_without_nvcc())
    assert words.startswith("flopcuda: FLOPCUDA_CUDA=1, but no nvcc")


@pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA is refused first")
@pytest.mark.parametrize("wish", ["auto", "1"])
def test_another_major_version_of_cuda_is_one_sentence(wish: str, tmp_path: Path) -> None:
    toolkit = fake_toolkit(tmp_path, f"release 9.2, V9.2\\n#$ TOP={tmp_path}\\n")
    words = build(tmp_path, FLOPCUDA_CUDA=wish, CUDA_HOME=str(toolkit))
    assert "is CUDA 9.2, but torch" in words
    assert "FLOPCUDA_CUDA=0" in words


@pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA is refused first")
@pytest.mark.parametrize("wish", ["7.0", "6.1+PTX;8.0"])
def test_a_gpu_that_is_too_old_is_one_sentence(wish: str, tmp_path: Path) -> None:
    toolkit = fake_toolkit(tmp_path, f"release {torch.version.cuda}, V\\n#$ TOP={tmp_path}\\n")
    words = build(tmp_path, FLOPCUDA_CUDA="1", CUDA_HOME=str(toolkit), TORCH_CUDA_ARCH_LIST=wish)
    oldest = wish.split(";")[0]
    assert words == f"flopcuda: TORCH_CUDA_ARCH_LIST has {oldest!r}, but the kernels are written for GPUs from 7.5 on"


@pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA is refused first")
def test_ptx_without_kernels_for_tensor_cores_is_refused(tmp_path: Path) -> None:
    """A later GPU would be given it, and kernels that do nothing."""
    toolkit = fake_toolkit(tmp_path, f"release {torch.version.cuda}, V\\n#$ TOP={tmp_path}\\n")
    words = build(tmp_path, FLOPCUDA_CUDA="1", CUDA_HOME=str(toolkit), TORCH_CUDA_ARCH_LIST="7.5+PTX")
    assert words.startswith("flopcuda: TORCH_CUDA_ARCH_LIST has '7.5+PTX', but kernels of before 8.0")


def test_the_package_holds_the_kernels_ptx() -> None:
    folder = resources.files("flopcuda") / "kernel_ptx"
    if not _C.cuda_version:
        assert not folder.is_dir()
        return
    entries = "".join(file.read_text() for file in folder.iterdir())
    for kernel in ("flopcuda_conv_f32_128x128x16", "flopcuda_linear_f32_128x128x16"):
        assert f".entry {kernel}(" in entries


@pytest.mark.parametrize("folder", ["common", "cpu", "cuda", "ptxvm", "vcuda"])
def test_no_torch_header_is_included(folder: str) -> None:
    sources = [path for path in (ROOT / "csrc" / folder).rglob("*") if path.is_file()]
    assert sources
    for path in sources:
        assert not re.search(r"#include\s*[<\"](torch|ATen|c10)\b", path.read_text()), path
