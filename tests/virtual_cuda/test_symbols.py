"""What torch wants of CUDA is there or known not to be; the libraries, their tables and the documents agree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from tests.virtual_cuda import symbols
from tests.virtual_cuda.programs import DRIVER, RUNTIME, needs_libraries, nvidias_runtime

pytestmark = needs_libraries

TORCH_LIBRARIES = sorted((Path(torch.__file__).parent / "lib").glob("*.so"))
needs_cuda_build = pytest.mark.skipif(torch.version.cuda is None, reason="needs a torch built for CUDA")


@pytest.mark.parametrize(("library", "path"), [("runtime", RUNTIME), ("driver", DRIVER)])
def test_the_library_is_what_its_table_says(library: str, path: Path) -> None:
    names = [symbol.name for symbol in symbols.table(library)]
    assert len(names) == len(set(names))
    own = {name for name in symbols.exported(path) if name.startswith("flopcuda")}
    assert symbols.exported(path) - own == set(names)


def test_the_runtime_exports_what_nvidias_does() -> None:
    assert symbols.exported(nvidias_runtime()) <= {symbol.name for symbol in symbols.table("runtime")}


@needs_cuda_build
def test_torch_finds_every_function_of_the_runtime() -> None:
    wanted = {name for path in TORCH_LIBRARIES for name in symbols.imported(path, "@libcudart.so.13")}
    assert "cudaMalloc" in wanted
    table = {symbol.name: symbol.is_real for symbol in symbols.table("runtime")}
    assert wanted <= set(table)
    # Sharing memory between processes, and conditions in graphs; the latter not in older versions of torch.
    assert {name for name in wanted if not table[name]} <= {
        "cudaGraphConditionalHandleCreate",
        "cudaIpcCloseMemHandle",
        "cudaIpcGetEventHandle",
        "cudaIpcGetMemHandle",
        "cudaIpcOpenEventHandle",
        "cudaIpcOpenMemHandle",
    }


@needs_cuda_build
def test_torch_finds_every_function_of_the_driver() -> None:
    users = [path for path in TORCH_LIBRARIES if "[libcuda.so.1]" in _dynamic_section(path)]
    wanted = {name for path in users for name in symbols.imported(path) if re.match("cu[A-Z]", name)}
    assert "cuModuleLoadData" in wanted
    assert wanted <= {symbol.name for symbol in symbols.table("driver")}


def _dynamic_section(path: Path) -> str:
    return subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True).stdout


def test_libraries_have_the_names_and_the_version_that_programs_look_for() -> None:
    for path in (RUNTIME, DRIVER):
        assert f"soname: [{path.name}]" in _dynamic_section(path)
    lines = subprocess.run(["nm", "-D", str(RUNTIME)], capture_output=True, text=True, check=True).stdout
    assert " cudaMalloc@@libcudart.so.13\n" in lines


def test_the_document_has_the_tables() -> None:
    text = symbols.DOCUMENT.read_text()
    assert symbols.with_tables(text) == text, "run python -m tests.virtual_cuda.symbols"
