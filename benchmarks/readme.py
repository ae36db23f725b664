"""Regenerate the README's tables: of measurements from the benchmarks' JSON, of coverage from the registry.

``python -m benchmarks.readme`` replaces what stands between the markers ``<!-- NAME -->`` and ``<!-- end NAME -->``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import prediction, taps
from benchmarks.markers import between_markers
from flopcuda.registry import COUNTED, NAMED

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"


def cpu_table(measured: dict[str, object]) -> str:
    """Models, and one line each of what else benchmarks/cpu.json measures."""
    threads = sorted({row["threads"] for row in measured["models"]})
    medians = {(row["model"], row["batch"], row["threads"]): row["median"] for row in measured["models"]}
    heading = [
        "| model | batch | " + " | ".join(f"{count} thread{'s' * (count > 1)}" for count in threads) + " |",
        "|---|---" + "|---" * len(threads) + "|",
    ]
    rows = [
        f"| {model} | {batch} | " + " | ".join(f"{medians[model, batch, count]:.2f}" for count in threads) + " |"
        for model, batch in dict.fromkeys(key[:2] for key in medians)
    ]
    peak = measured["peaks"]["1"]["flops"]
    dense = ", ".join(f"{row['what']} {row['share']:.0%}" for row in measured["dense"])
    slowest = max(measured["layers"], key=lambda row: row["ratio"])
    training = ", ".join(f"{row['median']:.2f}" for row in measured["training"])
    cost = measured["counting_cost"]
    dearest = max(cost, key=lambda row: row["median"])
    typical = statistics.median(row["median"] for row in cost)
    zero = ", ".join(f"{row['model']} {row['median']:.2f}" for row in measured["zero"])
    notes = [
        *_dtype_notes(measured.get("dtypes", [])),
        f"A training step of {measured['training'][0]['model']}, batch {measured['training'][0]['batch']}: {training}.",
        f"Slowest kind of layer: {slowest['description']} of {slowest['model']}, {slowest['ratio']:.2f}.",
        f"Of the multiply-adds that one core can do ({peak / 1e9:.0f} GFLOPS): {dense}.",
        f"The same kernels with counters over those without, median of {len(cost)} layers: "
        f"{typical:.3f}; dearest: {dearest['layer']}, {dearest['median']:.3f}.",
        f"Counting products with zero as well, time over that without: {zero}.",
        _scaling_note(measured["scaling"]),
        f"Peak resident memory of {measured['memory']['model']}, batch {measured['memory']['batch']}: "
        f"{measured['memory']['ratio']:.2f} of the original's.",
        f"Machine: {measured['machine']}, load average {measured['load_average']:.1f} before the run; "
        f"median of {measured['rounds']} pairs.",
    ]
    return "\n".join([*heading, *rows, "", *(f"- {note}" for note in notes)])


def _scaling_note(rows: Sequence[dict[str, object]]) -> str:
    """Of other batches and sizes of images, the time of a MAC over that of the first row; and the original model's."""
    first, *others = rows
    ratios = ", ".join(
        f"{row['batch']} of {row['size']}x{row['size']} {row['seconds_per_mac'] / first['seconds_per_mac']:.2f} "
        f"({row['original'] / first['original']:.2f})"
        for row in others
    )
    return (
        f"Time of a MAC of {first['model']} over that with {first['batch']} image of {first['size']}x{first['size']}, "
        f"the original's in parentheses: {ratios}."
    )


def _dtype_notes(rows: Sequence[dict[str, object]]) -> list[str]:
    """Medians of the layers in other dtypes, and the slowest of them; nothing where none were measured."""
    if not rows:
        return []
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(row["dtype"], []).append(row["ratio"])
    texts = (f"{dtype} {statistics.median(group):.2f} (at most {max(group):.2f})" for dtype, group in ratios.items())
    return [f"Layers in other dtypes over torch's, median of {len(next(iter(ratios.values())))}: {', '.join(texts)}."]


def ptxvm_table(measured: dict[str, object]) -> str:
    """Settings of benchmarks/ptxvm.json."""
    rows = [
        f"| {row['threads']} | {'all' if row['checks'] else 'none'} | {row['median']:,.0f} "
        f"| {row['median_per_processor_second']:,.0f} |"
        for row in measured["settings"]
    ]
    heading = [
        "| threads | checks | million lane-instructions a second | a second of processor time |",
        "|---|---|---|---|",
    ]
    product = measured["product"]
    size = product["size"]
    models = "; ".join(
        f"{row['model']} at {row['size']}x{row['size']}: {row['median_seconds']:.1f} s" for row in measured["models"]
    )
    notes = [
        f"`{product['kernel']}` on {size}x{size}x{size}, median of {product['rounds']}. Models with "
        f'`backend="ptxvm"`: {models}.',
        f"Machine: {measured['machine']}, load average {measured['load_average']:.1f} before the run.",
    ]
    return "\n".join([*heading, *rows, "", *notes])


# The kernels that README.md shows, each before that of CUTLASS which computes the same.
COMPARED_KERNELS = (
    "flopcuda_linear_f32_128x128x16",
    "CUTLASS float32 product 128x128x8",
    "flopcuda_conv_f32_128x128x16",
    "CUTLASS float32 convolution 128x128x8",
    "flopcuda_linear_f64_64x64x8",
    "CUTLASS float64 product 64x64x8",
    "flopcuda_linear_f64_mma_128x128x8",
    "CUTLASS float64 product 128x128x16, tensor cores",
    "flopcuda_linear_f16_128x128x32",
    "CUTLASS float16 product 128x128x32, tensor cores",
    "flopcuda_conv_f16_128x128x32",
    "CUTLASS float16 convolution 128x128x32, tensor cores",
    "flopcuda_linear_tf32_128x128x16",
    "CUTLASS TF32 product 128x128x16, tensor cores",
    "flopcuda_conv_tf32_128x128x16",
    "CUTLASS TF32 convolution 128x128x16, tensor cores",
)


def sass_table(measured: dict[str, object]) -> str:
    """Main loops of benchmarks/sass.json on sm_80."""
    figures = {row["kernel"]: row for row in measured["figures"] if row["architecture"] == "sm_80"}
    rows = [
        f"| `{row['kernel']}` | {row['multiply_adds']} of {row['instructions']} | {row['share']:.3f} "
        f"| {row['registers']} | {row['spilled_bytes']} |"
        for row in map(figures.__getitem__, COMPARED_KERNELS)
    ]
    heading = ["| kernel | multiply-adds in its main loop | share | registers | spilled |", "|---|---|---|---|---|"]
    notes = (
        f"sm_80, compiled by nvcc {measured['cuda']}; CUTLASS {measured['cutlass']}.",
        "CUTLASS rounds a float32 to TF32 in the loop; ours leave it to the tensor cores, which cut it off.",
        "On tensor cores, a convolution's loop is over the slices of one tap: ours steps to the next tap outside of "
        "it, CUTLASS's inside.",
    )
    return "\n".join([*heading, *rows, "", " ".join(notes)])


def coverage_table() -> str:
    """What is counted and how, and what is only named, from flopcuda/registry.py."""
    heading = ["| what | torch's operators | how | forward and gradients |", "|---|---|---|---|"]
    counted = [
        f"| {family.layers} | {_names(packet.__name__ for packet in family.lowerings)} | {family.kernels} | counted |"
        for family in COUNTED
    ]
    named = [
        f"| {kind} | {_names(operators[:3])}{' and others' if operators[3:] else ''} | torch's own code | named |"
        for kind, operators in NAMED.items()
    ]
    others = ["| other libraries' operators | any | their own code | named |"]
    return "\n".join([*heading, *counted, *named, *others])


def _names(operators: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in operators)


def tables() -> dict[str, str]:
    """Each table by the name that its markers have."""
    makers = {
        "cpu": cpu_table,
        "ptxvm": ptxvm_table,
        "sass": sass_table,
        "taps": taps.sentence,
    }
    measured = {name: make(json.loads((FOLDER / f"{name}.json").read_text())) for name, make in makers.items()}
    return {"coverage": coverage_table(), "prediction": prediction.sentence(), **measured}


def with_tables(text: str) -> str:
    """The README with its tables made anew.

    Raises:
        ValueError: a table's markers are not there, or there more than once.
    """
    for name, table in tables().items():
        text = between_markers(text, name, table)
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
