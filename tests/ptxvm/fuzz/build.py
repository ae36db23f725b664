"""Builds the fuzzer with the sanitizers into build/fuzz, again only when a source has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OUTPUT = ROOT / "build" / "fuzz"
FLAGS = (
    "-std=c++17 -g1 -Wno-psabi -pthread -ffp-contract=off -fno-strict-aliasing "
    "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"
)


def sources() -> list[Path]:
    """All of the machine but its binding to Python and the handlers that are compiled for one processor only."""
    machine = (ROOT / "csrc/ptxvm").rglob("*.cpp")
    left_out = {"bind.cpp", "core_avx2.cpp", "core_avx512.cpp"}
    return sorted([file for file in machine if file.name not in left_out] + list(Path(__file__).parent.glob("*.cpp")))


def optimisation(file: Path) -> str:
    """The big templates would take a minute to optimise."""
    return "-O0" if file.name == "core_portable.cpp" else "-O1"


def ninja_file() -> str:
    lines = [
        "rule compile",
        f"  command = c++ $level {FLAGS} -I{ROOT / 'csrc/ptxvm'} -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = c++ {FLAGS} $in -o $out",
    ]
    objects = []
    for file in sources():
        objects.append(str(file.relative_to(ROOT)).replace("/", "_") + ".o")
        lines += [f"build {objects[-1]}: compile {file}", f"  level = {optimisation(file)}"]
    lines.append(f"build fuzz: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def build() -> Path:
    """The driver, built. Raises subprocess.CalledProcessError with the compiler's output."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "build.ninja").write_text(ninja_file())
    ninja = shutil.which("ninja") or str(Path(sys.executable).with_name("ninja"))
    subprocess.run([ninja, "-C", str(OUTPUT)], check=True, capture_output=True, text=True)
    return OUTPUT / "fuzz"


if __name__ == "__main__":
    print(build())
