"""Build flopcuda: a ninja file of our own for the kernels, torch's BuildExtension for the operators around them.

The kernels (csrc/common, csrc/cpu, csrc/cuda), the PTX virtual machine (csrc/ptxvm) and the virtual CUDA device
(csrc/vcuda) include no torch header.
Compiling them apart from the operators keeps an edit to a kernel a matter of seconds, lets each file have its own
instruction set, and leaves a log of what ptxas said.

Environment:
    FLOPCUDA_CUDA=0|1|auto   without CUDA, with CUDA or an error, with CUDA if nvcc is found (the default)
    CUDA_HOME                the CUDA toolkit; else the nvcc on PATH, else the PyPI package nvidia-cuda-nvcc
    TORCH_CUDA_ARCH_LIST     as torch reads it, e.g. "8.0;9.0+PTX"
    MAX_JOBS                 parallel compilations
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pybind11
import torch
from setuptools import Extension, setup

ROOT = Path(__file__).parent.resolve()
CSRC = Path("csrc")
DEFAULT_ARCHITECTURES = "8.0;8.6;8.9;9.0;10.0;12.0+PTX"
LOWEST_CAPABILITY = 7, 5
# Before it, kernels for tensor cores are built empty, and are not chosen.
LOWEST_TENSOR_MAJOR = 8
# The virtual machine executes this one: the lowest default target, so that it has what every built GPU has.
PTX_ARCHITECTURE = "compute_80"
CXX_FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall"]
KERNEL_FLAGS = [*CXX_FLAGS, "-fopenmp", "-Icsrc"]
# A register is read as whatever type an instruction gives it, and vectors pass between inlined functions only.
PTXVM_FLAGS = [*CXX_FLAGS, "-Icsrc/ptxvm", "-fno-strict-aliasing", "-Wno-psabi", "-pthread"]
# The virtual device stands in for the runtime of this version only.
VCUDA_MAJOR = "13"
# Functions of CUDA's that are deprecated have to be there, too.
VCUDA_FLAGS = [*CXX_FLAGS, "-Icsrc/vcuda", "-Icsrc/ptxvm", "-Wno-deprecated-declarations", "-pthread"]
NVCC_FLAGS = ["-O3", "-std=c++17", "--expt-relaxed-constexpr", "-lineinfo", "-Xcompiler=-fPIC", "-Icsrc"]


@dataclass(frozen=True)
class CudaToolkit:
    """An nvcc and what linking against its runtime needs."""

    nvcc: Path
    version: str
    include: Path
    runtime: Path

    @property
    def major(self) -> str:
        return self.version.split(".")[0]


def fail(sentence: str) -> None:
    """Stop the build with one sentence and no traceback."""
    sys.exit(f"flopcuda: {sentence}")


def find_nvcc() -> Path | None:
    """CUDA_HOME first, then PATH, then the PyPI package nvidia-cuda-nvcc."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        nvcc = Path(home) / "bin" / "nvcc"
        if not nvcc.is_file():
            fail(f"CUDA_HOME is {home}, but there is no bin/nvcc in it")
        return nvcc
    on_path = shutil.which("nvcc")
    if on_path:
        return Path(on_path)
    packaged = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/nvcc"))
    return packaged[-1] if packaged else None


def inspect_toolkit(nvcc: Path) -> CudaToolkit:
    """Ask nvcc itself where its toolkit is: the file on PATH may be a wrapper script elsewhere."""
    version = re.search(r"release (\d+\.\d+)", run([nvcc, "--version"]))
    top = re.search(r"^#\$ TOP=(.*)$", run([nvcc, "--dryrun", "-x", "cu", os.devnull]), re.MULTILINE)
    if not version or not top:
        fail(f"{nvcc} does not answer like an nvcc; set CUDA_HOME to a CUDA toolkit or FLOPCUDA_CUDA=0")
    home = Path(top[1].strip()).resolve()
    packaged = Path(sysconfig.get_path("purelib")) / "nvidia"
    roots = [home, home / "targets/x86_64-linux", home / "targets/sbsa-linux", *sorted(packaged.glob("*"))]
    include = first_existing(root / "include" for root in roots if (root / "include/cuda_runtime_api.h").is_file())
    major = version[1].split(".")[0]
    names = ["libcudart.so", f"libcudart.so.{major}"]
    runtime = first_existing(root / lib / name for root in roots for lib in ("lib64", "lib") for name in names)
    if not include or not runtime:
        missing = "cuda_runtime_api.h" if not include else "libcudart.so"
        fail(f"{nvcc} was found, but not its {missing}; set CUDA_HOME to a whole CUDA toolkit or FLOPCUDA_CUDA=0")
    return CudaToolkit(nvcc, version[1], include, runtime)


def first_existing(paths) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def run(command: list) -> str:
    """The command's output, standard error included (nvcc --dryrun prints there)."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


def select_cuda() -> CudaToolkit | None:
    """The toolkit to build with, or None for a CPU-only build. Never asks whether this machine has a GPU."""
    wanted = os.environ.get("FLOPCUDA_CUDA", "auto").lower()
    if wanted not in ("0", "1", "auto"):
        fail(f"FLOPCUDA_CUDA must be 0, 1 or auto, not {wanted!r}")
    if wanted == "0":
        return None
    if torch.version.cuda is None:
        if wanted == "1":
            fail(f"FLOPCUDA_CUDA=1, but the installed torch {torch.__version__} was built without CUDA")
        return None
    nvcc = find_nvcc()
    if nvcc is None:
        if wanted == "1":
            fail("FLOPCUDA_CUDA=1, but no nvcc in CUDA_HOME, on PATH or in the PyPI package nvidia-cuda-nvcc")
        return None
    toolkit = inspect_toolkit(nvcc)
    if toolkit.major != torch.version.cuda.split(".")[0]:
        fail(
            f"{nvcc} is CUDA {toolkit.version}, but torch {torch.__version__} was built for CUDA {torch.version.cuda}: "
            "set CUDA_HOME to a toolkit of that major version, or FLOPCUDA_CUDA=0 for a build without CUDA"
        )
    return toolkit


def gencode_flags(architectures: str) -> list[str]:
    """TORCH_CUDA_ARCH_LIST's numbers ("8.6", "9.0a", "12.0+PTX") as nvcc flags.

    Machine code for all minor versions of a major one is made from PTX of the lowest: no kernel asks for a minor
    version, so that each would have the same PTX, whose making is most of the build.
    """
    entries = []
    for entry in architectures.replace(" ", ";").split(";"):
        match = re.fullmatch(r"(\d+)\.(\d+)([af]?)(\+PTX)?", entry)
        if match and (int(match[1]), int(match[2])) < LOWEST_CAPABILITY:
            fail(f"TORCH_CUDA_ARCH_LIST has {entry!r}, but the kernels are written for GPUs from 7.5 on")
        if match and match[4] and int(match[1]) < LOWEST_TENSOR_MAJOR:
            fail(
                f"TORCH_CUDA_ARCH_LIST has {entry!r}, but kernels of before 8.0 are not for later GPUs: leave out +PTX"
            )
        if match:
            entries.append((int(match[1]), int(match[2]), match[3], bool(match[4])))
        elif entry:
            fail(f"TORCH_CUDA_ARCH_LIST has {entry!r}; entries look like 8.6, 9.0a or 12.0+PTX")
    codes: dict[str, list[str]] = {}  # by what they are made from
    lowest: dict[int, str] = {}
    flags = []
    for major, minor, variant, with_ptx in sorted(entries):
        number = f"{major}{minor}{variant}"
        source = number if variant else lowest.setdefault(major, number)
        codes.setdefault(source, []).append(f"sm_{number}")
        if with_ptx:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return [f"-gencode=arch=compute_{source},code=[{','.join(made)}]" for source, made in codes.items()] + flags


def cpu_sources() -> list[Path]:
    """All but the files whose instruction set this kind of machine lacks; dispatch.cpp does without them."""
    on_x86 = platform.machine() in ("x86_64", "AMD64")
    return [path for path in sorted((ROOT / CSRC / "cpu").glob("*.cpp")) if on_x86 or "avx" not in path.name]


def cuda_host_sources() -> list[Path]:
    """Launch plans are host code without CUDA headers, built also where there is no nvcc."""
    return sorted((ROOT / CSRC / "cuda").glob("*.cpp"))


def cuda_sources() -> list[Path]:
    return sorted((ROOT / CSRC / "cuda").glob("*.cu"))


def ptxvm_sources() -> list[Path]:
    """All but the Python binding."""
    return [path for path in sorted((ROOT / CSRC / "ptxvm").rglob("*.cpp")) if path.name != "bind.cpp"]


def vcuda_sources(folder: str = ".") -> list[Path]:
    return sorted((ROOT / CSRC / "vcuda" / folder).glob("*.cpp"))


def headers(folder: str = ".") -> list[Path]:
    """Relative, as setuptools wants what goes into a source distribution."""
    suffixes = ("*.h", "*.cuh", "*.inc")
    return [path.relative_to(ROOT) for suffix in suffixes for path in sorted((ROOT / CSRC / folder).rglob(suffix))]


class KernelBuild:
    """Writes and runs the ninja file of everything that includes no torch header."""

    RULES = """\
rule cxx
  command = $cxx $flags $isa -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = CXX $in
rule nvcc
  command = $nvcc $flags $gencode -Xptxas=-v -MMD -MF $out.d -c $in -o $out >$out.log 2>&1 || (cat $out.log; false)
  depfile = $out.d
  deps = gcc
  description = NVCC $in
rule library
  command = $cxx -shared -pthread -Wl,--no-undefined -Wl,-soname,$soname $in $flags -ldl -o $out
  description = LINK $out
rule ptx
  command = $nvcc $flags -ptx -arch=$architecture -MMD -MF $out.d $in -o $out
  depfile = $out.d
  deps = gcc
  description = PTX $in
"""

    def __init__(self, folder: Path, toolkit: CudaToolkit | None) -> None:
        self.folder = folder
        self.toolkit = toolkit
        self.ptxas_log = folder / "ptxas.log"
        self.objects: list[Path] = []
        self.ptxvm_objects: list[Path] = []
        self.ptx: list[Path] = []
        self.vcuda_libraries: list[Path] = []
        self.statements: list[str] = []

    def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for source in cpu_sources() + cuda_host_sources():
            self.objects.append(self.compile_cxx(source, KERNEL_FLAGS))
        for source in ptxvm_sources():
            self.ptxvm_objects.append(self.compile_cxx(source, PTXVM_FLAGS))
        if self.toolkit:
            for source in cuda_sources():
                self.add_cuda(source)
            if self.toolkit.major == VCUDA_MAJOR:
                self.add_vcuda()
        ninja_file = self.folder / "kernels.ninja"
        ninja_file.write_text(f"builddir = {escape(self.folder)}\n" + self.RULES + "".join(self.statements))
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        if subprocess.run(["ninja", "-f", ninja_file, *jobs], cwd=ROOT, check=False).returncode:
            fail("a kernel did not compile; the compiler's own words stand above")
        if self.toolkit:
            self.write_ptxas_log()

    def compile_cxx(self, source: Path, flags: list[str]) -> Path:
        """The object file."""
        isa = json.loads((ROOT / CSRC / "cpu" / "isa_flags.json").read_text()).get(source.name, [])
        return self.edge("cxx", source, ".o", cxx=compiler(), flags=flags, isa=isa)

    def add_cuda(self, source: Path) -> None:
        gencode = gencode_flags(os.environ.get("TORCH_CUDA_ARCH_LIST") or DEFAULT_ARCHITECTURES)
        nvcc = {"nvcc": self.toolkit.nvcc, "flags": [*NVCC_FLAGS, f"-I{self.toolkit.include}"]}
        self.objects.append(self.edge("nvcc", source, ".o", **nvcc, gencode=gencode))
        self.ptx.append(self.edge("ptx", source, ".ptx", **nvcc, architecture=PTX_ARCHITECTURE))

    def add_vcuda(self) -> None:
        """The virtual device's libraries, under the names and symbol versions of CUDA's own."""
        flags = [*VCUDA_FLAGS, "-isystem", str(self.toolkit.include)]
        objects = [self.compile_cxx(source, flags) for source in vcuda_sources()] + self.ptxvm_objects
        runtime = self.link(f"libcudart.so.{self.toolkit.major}", objects)
        objects = [self.compile_cxx(source, flags) for source in vcuda_sources("driver")]
        self.link("libcuda.so.1", [*objects, runtime], "-Wl,-rpath,'$$ORIGIN'")  # The runtime lies beside it.

    def link(self, name: str, inputs: list[Path], *flags: str) -> Path:
        """A shared library. Which names it exports stands in a version script beside its sources."""
        exports = ROOT / CSRC / "vcuda" / f"{name}.map"
        library = self.folder / name
        flags = [f"-Wl,--version-script={exports}", *flags]
        self.statement("library", library, inputs, [exports], cxx=compiler(), soname=name, flags=flags)
        self.vcuda_libraries.append(library)
        return library

    def edge(self, rule: str, source: Path, suffix: str, **variables) -> Path:
        """One build statement of one source; the path of its output."""
        output = self.folder / f"{source.parent.name}_{source.stem}{suffix}"
        self.statement(rule, output, [source], [], **variables)
        return output

    def statement(self, rule: str, output: Path, inputs: list[Path], implicit: list[Path], **variables) -> None:
        lines = [f"build {escape(output)}: {rule} {escape(*inputs)} | {escape(*implicit)}"]
        for name, value in variables.items():
            lines.append(f"  {name} = {' '.join(value) if isinstance(value, list) else value}")
        self.statements.append("\n".join(lines) + "\n")

    def write_ptxas_log(self) -> None:
        """Registers, shared memory and spills of every kernel and architecture, kept beside the objects."""
        logs = [Path(f"{item}.log") for item in self.objects]
        text = "".join(log.read_text() for log in logs if log.exists())
        self.ptxas_log.write_text(text)


def compiler() -> str:
    return os.environ.get("CXX", "c++")


def escape(*paths: Path) -> str:
    """As ninja writes them."""
    return " ".join(str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:") for path in paths)


def main() -> None:
    # Imported late: its import looks for a toolkit of its own and warns; ours is found by select_cuda().
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    class Build(BuildExtension):
        """Kernels first; their objects are then linked with the operators."""

        def finalize_options(self) -> None:
            """Keep objects in build/, also where pip would build in a folder of its own, for the next build to use."""
            super().finalize_options()
            self.build_temp = str(ROOT / "build" / f"temp-{sysconfig.get_config_var('SOABI')}-torch{torch.__version__}")

        def build_extensions(self) -> None:
            toolkit = select_cuda()
            say(toolkit)
            kernels = KernelBuild(ROOT / "build" / "kernels", toolkit)
            kernels.run()
            operators, ptxvm = self.extensions
            for extension, objects in ((operators, kernels.objects), (ptxvm, kernels.ptxvm_objects)):
                extension.extra_objects = [str(path) for path in objects]
                extension.depends += extension.extra_objects
            if toolkit:
                self.link_cuda(operators, toolkit)
            self.kernels = kernels
            self.install_files(Path(self.build_lib))
            super().build_extensions()

        def copy_extensions_to_source(self) -> None:
            """For an editable install: what belongs into the package goes into the source tree."""
            super().copy_extensions_to_source()
            self.install_files(ROOT)

        def link_cuda(self, operators: Extension, toolkit: CudaToolkit) -> None:
            operators.include_dirs.append(str(toolkit.include))
            operators.define_macros += [
                ("FLOPCUDA_WITH_CUDA", "1"),
                ("FLOPCUDA_CUDA_VERSION", f'"{toolkit.version}"'),
                ("FLOPCUDA_ARCHITECTURES", f'"{os.environ.get("TORCH_CUDA_ARCH_LIST") or DEFAULT_ARCHITECTURES}"'),
            ]
            operators.libraries += ["c10_cuda", "torch_cuda"]
            operators.extra_objects.append(str(toolkit.runtime))

        def install_files(self, root: Path) -> None:
            """What is neither Python nor an extension: PTX, what ptxas said, the libraries of the virtual device."""
            package, kernels = root / "flopcuda", self.kernels
            log = {"ptxas.log": kernels.ptxas_log} if kernels.toolkit else {}
            # Not of the launcher, which is host code only.
            ptx = {file.name.removeprefix("cuda_"): file for file in kernels.ptx if ".entry" in file.read_text()}
            install(package / "kernel_ptx", log | ptx)
            install(package / "virtual_cuda" / "lib", {file.name: file for file in kernels.vcuda_libraries})

    operators = CppExtension(
        "flopcuda._C",
        [f"{CSRC}/torch/{path.name}" for path in sorted((ROOT / CSRC / "torch").glob("*.cpp"))],
        include_dirs=[str(ROOT / CSRC)],
        depends=[str(path) for path in headers()],
        extra_compile_args=["-O2", "-fvisibility=hidden", "-Wno-attributes"],
        extra_link_args=["-fopenmp"],
    )
    ptxvm = Extension(
        "flopcuda._ptxvm",
        ["csrc/ptxvm/bind.cpp"],
        include_dirs=[str(ROOT / CSRC / "ptxvm"), pybind11.get_include()],
        depends=[str(path) for path in headers("ptxvm")],
        extra_compile_args=["-std=c++17", "-O2", "-fvisibility=hidden"],
        extra_link_args=["-pthread"],
        language="c++",
    )
    setup(ext_modules=[operators, ptxvm], cmdclass={"build_ext": Build.with_options(use_ninja=True)})


def install(folder: Path, files: dict[str, Path]) -> None:
    """These files under these names, and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, file in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)


def say(toolkit: CudaToolkit | None) -> None:
    if toolkit:
        print(f"flopcuda: building with CUDA {toolkit.version} ({toolkit.nvcc})")
    else:
        print("flopcuda: building for the CPU only (no nvcc, a torch without CUDA, or FLOPCUDA_CUDA=0)")


main()
