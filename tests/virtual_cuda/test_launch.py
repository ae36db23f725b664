"""Starting programs, commands and tests with the virtual device, and what comes of their kernels' defects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from flopcuda.virtual_cuda import launch
from flopcuda.virtual_cuda.__main__ import main
from flopcuda.virtual_cuda.launch import UnavailableError
from tests.ptxvm.harness import needs_nvcc
from tests.virtual_cuda.programs import needs_libraries

ROOT = Path(__file__).parents[2]


def run(*command: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def run_virtually(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return run("-m", "flopcuda.virtual_cuda", *command, **options)  # type: ignore[arg-type]


SCRIPT = """
import os, subprocess, sys

def double(x):
    return 2 * x

if __name__ == "__main__":
    import torch

    print(sys.argv[1:], sys.flags.dont_write_bytecode, os.path.basename(sys.path[0]), customized)
    x = torch.ones(2, device="cuda") + 1
    properties = torch.cuda.get_device_properties(0)
    print(x.tolist(), torch.cuda.device_count(), properties.name, properties.total_memory)
    child = "import torch; print(torch.arange(3, device='cuda').sum().item())"
    subprocess.run([sys.executable, "-c", child], check=True)
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        print(pool.map(double, [7]))
    sys.exit(3)
"""


@needs_libraries
def test_a_script_runs_as_it_would_by_itself(tmp_path: Path) -> None:
    """Arguments, interpreter flags, sys.path, child processes, exit status; and with the settings asked for."""
    (tmp_path / "script.py").write_text(SCRIPT)
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import builtins; builtins.customized = True")
    settings = ["--arch", "sm_90", "--memory", "512M", "--devices", "2"]
    command = ["-B", "-m", "flopcuda.virtual_cuda", *settings, str(tmp_path / "script.py"), "--memory", "-m"]
    done = run(*command, PYTHONPATH=f"{ROOT}{os.pathsep}{other}")
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines() == [
        f"['--memory', '-m'] 1 {tmp_path.name} True",
        f"[2.0, 2.0] 2 flopcuda virtual CUDA device, sm_90 {512 << 20}",
        "3",
        "[14]",
    ]


@needs_libraries
def test_a_module_runs_too() -> None:
    done = run_virtually("-m", "timeit", "-n1", "-r1", "-s", "import torch; print(torch.cuda.is_available())")
    assert done.stdout.startswith("True\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arch", "new", "x.py"], "'new' is no architecture; it looks like sm_80"),
        (["--memory", "much", "x.py"], "'much' is no size; it looks like 8G or 512M"),
        ([], "Missing argument"),
    ],
)
def test_a_command_line_that_is_wrong_is_one_sentence(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.parametrize(
    ("arguments", "interpreter", "variables"),
    [
        (["x.py"], ["x.py"], {}),
        (["-c", "code", "--arch"], ["-c", "code", "--arch"], {}),
        (["--arch", "8.6", "-m", "x", "-v"], ["-m", "x", "-v"], {"ARCH": "86"}),
        (["--memory", "2g", "--devices", "3", "x.py"], ["x.py"], {"MEMORY": str(2 << 30), "DEVICES": "3"}),
        (["--checks", "race,bounds", "--seed", "0", "x.py"], ["x.py"], {"CHECKS": "race,bounds", "SEED": "0"}),
    ],
)
def test_a_command_line_becomes_the_interpreters(
    arguments: list[str], interpreter: list[str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(launch, "restart", lambda *call: started.append(call))
    CliRunner().invoke(main, arguments, catch_exceptions=False)
    ((command, settings),) = started
    assert command[-len(interpreter) :] == interpreter
    assert settings == {f"FLOPCUDA_VCUDA_{name}": value for name, value in variables.items()}


@needs_libraries
def test_resnet18_validates_on_the_virtual_device() -> None:
    arguments = ["resnet18", "--input-size", "3x64x64", "--device", "cuda"]
    done = run("-m", "flopcuda", "validate", *arguments, "--virtual-cuda")
    assert done.returncode == 0, done.stderr
    assert "cuda:0 (virtual)" in done.stdout
    assert "ok: all 21 layers execute exactly what the formula says" in done.stdout
    assert "FLOPS" not in done.stdout
    assert "not seen" not in done.stdout


DEFECTIVE_SCRIPT = """
import torch
from tests.virtual_cuda.library import scale, shift
shift(torch.zeros(64, device="cuda"))
x = torch.ones(1, 100, device="cuda")
scale(x, 2, count=101)
try:
    x.sum()
except torch.AcceleratorError as error:
    print(str(error).splitlines()[0])
"""


@needs_libraries
@needs_nvcc
def test_defects_are_printed_at_exit_with_status_1() -> None:
    """A race that hardware would not notice, and an access to the one element beyond a tensor, which it might not."""
    done = run_virtually("-c", DEFECTIVE_SCRIPT)
    assert done.returncode == 1
    assert done.stdout == "CUDA error: an illegal memory access was encountered\n"
    _, _, summary = done.stderr.partition("defects were found in kernels\n")
    assert {"race:", "bounds:"} <= {line.split()[0] for line in summary.splitlines()}
    assert all("kernel.cu:" in line for line in summary.splitlines())


TESTS = """
import torch
from tests.virtual_cuda.library import scale, shift

def test_right():
    x = torch.ones(9, device="cuda")
    scale(x, 2)
    assert x.sum() == 18

def test_race():
    shift(torch.zeros(64, device="cuda"))

def test_race_and_failure():
    shift(torch.zeros(64, device="cuda"))
    assert False, "by itself"
"""


@needs_libraries
@needs_nvcc
def test_pytest_fails_the_test_whose_kernel_has_a_defect(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ["-p", "pytest_flopcuda", "-p", "no:cacheprovider", "-v", "--rootdir", str(tmp_path)]
    done = run("-m", "pytest", *options, "--virtual-cuda", str(tmp_path), folder=tmp_path)
    assert "virtual CUDA: 1 x flopcuda virtual CUDA device, sm_80" in done.stdout, done.stdout + done.stderr
    assert "test_it.py::test_right PASSED" in done.stdout
    assert "test_it.py::test_race FAILED" in done.stdout
    assert "race: " in done.stdout
    assert "AssertionError: by itself" in done.stdout
    assert "2 failed, 1 passed" in done.stdout
    assert done.returncode == 1


def test_without_cuda_in_torch_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UnavailableError, match=r"^torch .* was built without CUDA"):
        launch.environment({})


@pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA is refused first")
def test_without_the_libraries_there_is_no_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "LIBRARIES", tmp_path)
    with pytest.raises(UnavailableError, match=r"needs its libcudart\.so\.\d+ for this torch .* left none"):
        launch.environment({})
    monkeypatch.setattr(torch.version, "cuda", "99.1")
    (tmp_path / "libcudart.so.13").touch()
    with pytest.raises(UnavailableError, match=r"needs its libcudart\.so\.99 .* left libcudart\.so\.13"):
        launch.environment({})


def test_an_isolated_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "flags", SimpleNamespace(ignore_environment=1, no_site=0))
    with pytest.raises(UnavailableError, match="-E, -I or -S"):
        launch.environment({})


@needs_libraries
def test_the_environment_keeps_what_is_there() -> None:
    present = {
        "LD_PRELOAD": "/lib/mine.so",
        "PYTHONPATH": "/mine",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    added = launch.environment(present)
    assert added["LD_PRELOAD"].endswith(":/lib/mine.so")
    assert added["PYTHONPATH"] == f"{launch.BOOTSTRAP}:/mine"
    assert set(added) == {"LD_PRELOAD", "PYTHONPATH"}
    assert launch.environment({})["PYTORCH_CUDA_ALLOC_CONF"] == "backend:cudaMallocAsync"
