"""No figure of the kernels' machine code may be worse than those that benchmarks/sass.json records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import sass as benchmark
from flopcuda import _C, info
from flopcuda.kernels import sass


def test_each_figure_that_is_worse_is_named() -> None:
    now = benchmark.Figures("k", "sm_80", 90, 100, 0.9, {"FFMA": 90}, 100, 1000, 0, 2, 0.25)
    elsewhere = replace(now, architecture="sm_90", share=0.1)
    assert benchmark.worse_figures([now], [now, replace(now, kernel="CUTLASS"), elsewhere]) == []
    assert benchmark.worse_figures([now, elsewhere], [now]) == ["k on sm_90 is not recorded"]
    assert benchmark.worse_figures([now], [now, replace(now, kernel="l")]) == ["l on sm_80 has vanished"]
    better_before = replace(now, share=0.95, registers=90, shared_bytes=999, spilled_bytes=-1, blocks=3)
    assert benchmark.worse_figures([now], [better_before]) == [
        "k on sm_80: multiply-adds are 0.9000 of the main loop, and were 0.9500",
        "k on sm_80: 100 registers, and were 90",
        "k on sm_80: 1000 shared bytes, and were 999",
        "k on sm_80: 0 spilled bytes, and were -1",
        "k on sm_80: 2 blocks on a multiprocessor, and were 3",
    ]


@pytest.mark.skipif(not (info.ptx_files() and sass.find_tool("cuobjdump")), reason="needs CUDA kernels and cuobjdump")
def test_no_figure_got_worse() -> None:
    cuda, recorded = benchmark.load_results()
    if cuda != _C.cuda_version:
        pytest.skip(f"figures are of CUDA {cuda}, not {_C.cuda_version}")
    ours = benchmark.measure_ours(("sm_80",))
    assert benchmark.worse_figures(ours, recorded) == []


def test_recorded_products_of_float64_are_leaner_than_cutlass() -> None:
    """Where both multiply by the same instruction: on Hopper, ours has a larger one."""
    shares = {row.kernel: row.share for row in benchmark.load_results()[1] if row.architecture == "sm_80"}
    theirs = shares["CUTLASS float64 product 128x128x16, tensor cores"]
    assert shares["flopcuda_linear_f64_mma_128x128x8"] > theirs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("flopcuda_linear_f32_128x128x16", "CUTLASS float32 product 128x128x8"),
        ("flopcuda_conv_f32_128x128x16", "CUTLASS float32 convolution 128x128x8"),
        ("flopcuda_linear_f16_128x128x32", "CUTLASS float16 product 128x128x32, tensor cores"),
        ("flopcuda_conv_f16_128x128x32", "CUTLASS float16 convolution 128x128x32, tensor cores"),
        ("flopcuda_linear_tf32_128x128x16", "CUTLASS TF32 product 128x128x16, tensor cores"),
        ("flopcuda_conv_tf32_128x128x16", "CUTLASS TF32 convolution 128x128x16, tensor cores"),
    ],
)
def test_recorded_main_loops_are_leaner_than_cutlass(ours: str, theirs: str) -> None:
    shares = {(row.kernel, row.architecture): row.share for row in benchmark.load_results()[1]}
    for architecture in benchmark.ARCHITECTURES:
        assert shares[ours, architecture] > shares[theirs, architecture]
