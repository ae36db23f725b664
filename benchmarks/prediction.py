"""The cost model beside published times of cuBLAS and CUTLASS.

``python -m benchmarks.prediction`` predicts each product that somebody published a throughput of, with kernels like
those libraries', and writes the table of docs/prediction.md anew. No constant of the model was fitted to these figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from benchmarks.markers import between_markers
from flopcuda.prediction import GPU, GPUS, Tiling, Time, Work, predict_time

DOCUMENT = Path(__file__).parents[1] / "docs" / "prediction.md"

A6000 = GPU("RTX A6000", "sm_86", 84, 1.8e9, 1.8e9, 768e9, 6 << 20)  # NVIDIA's data sheet: 38.7 TFLOPS, 768 GB/s

# The fastest of them is taken, as the libraries' own choice means to do. The shares of 128x128x8, x16 and x32 are
# CUTLASS's in benchmarks/sass.json, with the blocks that a multiprocessor holds; those of other tiles are assumed to
# be the same, or less by the reads of shared memory that a smaller tile adds. Still smaller tiles, which the libraries
# keep for small products, are left out: the model, which ignores L2 and shared memory, would take them for large ones.
SIMT = (
    Tiling("128x128x8", (128, 128, 8), "fma_f32", 0.81, 1),
    Tiling("128x64x8", (128, 64, 8), "fma_f32", 0.77, 2),
    Tiling("64x64x8", (64, 64, 8), "fma_f32", 0.73, 4),
)
MMA = (
    Tiling("256x128x32", (256, 128, 32), "mma_f16", 0.40, 1),
    Tiling("128x128x32", (128, 128, 32), "mma_f16", 0.40, 2),
)
MMA_F64 = (
    Tiling("128x128x16", (128, 128, 16), "mma_f64", 0.33, 1),
    Tiling("64x64x16", (64, 64, 16), "mma_f64", 0.30, 3),
)
# One wgmma of a warp group is as many multiply-adds as 32 to 256 mma.sync; its rate is the peak, of which GPU.rates
# has the 63% that mma.sync reaches.
WGMMA = (Tiling("128x256x64 wgmma", (128, 256, 64), "mma_f16", 1.0, 1, rate_share=1 / 0.63),)
KERNELS = {"float32": SIMT, "float64": MMA_F64, "bfloat16": MMA, "bfloat16, wgmma": WGMMA}
BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "bfloat16, wgmma": 2}

SGBLAS = "cuBLAS 12.4, [AG0708/sgBLAS](https://github.com/AG0708/sgBLAS/blob/main/docs/results-a100-sxm4.md)"
TRITON = "cuBLAS, [triton-lang/triton](https://github.com/triton-lang/triton/pull/10060)"
MAMF = "torch, [stas00/ml-engineering](https://github.com/stas00/ml-engineering/tree/master/compute/accelerator)"
MAG = "torch, [mag-/gpu_benchmark](https://github.com/mag-/gpu_benchmark)"


@dataclass(frozen=True)
class Published:
    """A measured throughput of ``[rows, reduction]`` by ``[reduction, columns]``, in TFLOPS."""

    gpu: GPU
    numbers: str
    rows: int
    columns: int
    reduction: int
    teraflops: float
    source: str

    @property
    def work(self) -> Work:
        sizes = (self.rows, self.reduction), (self.columns, self.reduction), (self.rows, self.columns)
        operands = [BYTES[self.numbers] * prod(size) for size in sizes]
        return Work(1, self.rows, self.columns, self.reduction, *operands, rows_first=False)


def _square(gpu: GPU, size: int, teraflops: float, source: str, numbers: str = "float32") -> Published:
    return Published(gpu, numbers, size, size, size, teraflops, source)


PUBLISHED = (
    _square(GPUS["a100"], 256, 2.7457, SGBLAS),
    _square(GPUS["a100"], 512, 9.7482, SGBLAS),
    _square(GPUS["a100"], 1024, 16.5422, SGBLAS),
    _square(GPUS["a100"], 2048, 17.6690, SGBLAS),
    _square(GPUS["a100"], 4096, 19.0236, SGBLAS),
    Published(GPUS["a100"], "float32", 4096, 1024, 4096, 18.6270, SGBLAS),
    _square(GPUS["a100"], 8192, 19.1533, SGBLAS),
    _square(A6000, 4096, 23.2496, "cuBLAS, [siboehm/SGEMM_CUDA](https://github.com/siboehm/SGEMM_CUDA)"),
    _square(
        GPUS["rtx4090"],
        4096,
        47.6118,
        "cuBLAS, [annanyapr/Fast-CUDA-Kernels](https://github.com/annanyapr/Fast-CUDA-Kernels)",
    ),
    *(
        _square(GPUS["a100"], size, teraflops, TRITON, "float64")
        for size, teraflops in ((512, 8.456), (1024, 14.873), (1792, 16.242))
    ),
    Published(GPUS["a100"], "bfloat16", 1024, 10240, 5120, 271.2, MAMF),
    Published(GPUS["a100"], "bfloat16", 6912, 2048, 16384, 267.9, MAMF),
    Published(GPUS["rtx4090"], "bfloat16", 15360, 6784, 8192, 178.5, MAG),
    Published(GPUS["l4"], "bfloat16", 1024, 6016, 1792, 91.4, MAG),
    Published(GPUS["h100"], "bfloat16, wgmma", 2048, 2048, 13312, 794.5, MAMF),
    Published(GPUS["h100"], "bfloat16, wgmma", 6144, 2816, 17920, 792.1, MAMF),
    Published(
        GPUS["h100"],
        "bfloat16, wgmma",
        4224,
        2048,
        8192,
        780.2,
        "CUTLASS, [a gist of Horace He](https://gist.github.com/Chillee/2ec89696db8b7ed1c24461159e325405)",
    ),
)


def predict(figure: Published) -> tuple[Tiling, Time]:
    """The fastest kernel for a published product, and its time."""
    times = [(kernel, predict_time(figure.work, kernel, figure.gpu)) for kernel in KERNELS[figure.numbers]]
    return min(times, key=lambda entry: entry[1].seconds)


def predicted_teraflops(figure: Published) -> float:
    return 2 * figure.work.multiply_adds / predict(figure)[1].seconds / 1e12


def table() -> str:
    """A row for each published figure."""
    lines = [
        "| GPU | numbers | product | kernel | bound by | predicted TFLOPS | published | error | source |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for figure in PUBLISHED:
        kernel, time = predict(figure)
        size = f"{figure.rows}x{figure.columns}x{figure.reduction}"
        predicted = predicted_teraflops(figure)
        error = predicted / figure.teraflops - 1
        cells = [figure.gpu.name, figure.numbers, size, kernel.name.split()[0], time.bound_by]
        numbers = [f"{predicted:.1f}", f"{figure.teraflops:.1f}", f"{error:+.0%}", figure.source]
        lines.append(f"| {' | '.join([*cells, *numbers])} |")
    return "\n".join(lines)


def errors(gpu: str = "", numbers: str = "") -> list[float]:
    """By how much the predicted throughput is too high, as a share, of the figures of a GPU and kind of number."""
    return [
        predicted_teraflops(figure) / figure.teraflops - 1
        for figure in PUBLISHED
        if gpu in figure.gpu.name and numbers in figure.numbers
    ]


def sentence() -> str:
    """For the README."""
    near, all_errors = errors("A100", "float32"), errors()
    return (
        f"Against {len(all_errors)} published throughputs of cuBLAS and CUTLASS, the model is off by "
        f"{min(near):+.0%} to {max(near):+.0%} for float32 on an A100, and by {min(all_errors):+.0%} to "
        f"{max(all_errors):+.0%} over all: mostly too fast, "
        "for it knows no power limit."
    )


def with_table(text: str) -> str:
    """The document with its table made anew.

    Raises:
        ValueError: the table's markers are not there once.
    """
    return between_markers(text, "published", table())


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
    print(table())
