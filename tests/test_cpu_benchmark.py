"""The CPU benchmark compares what it says: the same work of both sides, and all of what it lists."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import flopcuda
from benchmarks import counting_cost, cpu, cpu_dtypes, cpu_layers, cpu_models
from benchmarks.machine_peak import Peak
from tests.cpu_kernels import Counters, build_kernels


class Layers(nn.Module):
    """A launch of every kind that the benchmark replays."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
        self.pointwise = nn.Conv2d(8, 6, 1, bias=False)
        self.head = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.pointwise(self.grouped(images)).flatten(2)
        return self.head((pixels @ pixels.transpose(1, 2)).flatten(0, 1))


def test_a_replayed_launch_and_torch_compute_the_same() -> None:
    with torch.no_grad(), flopcuda.instrument(Layers()) as session:
        session.model(torch.randn(2, 4, 9, 7))
    launches = session.report().launches
    assert [launch.op for launch in launches] == ["conv2d", "conv2d", "matmul", "linear"]
    for launch in launches:
        counted, original = cpu_layers.replays(launch)
        output, counters = counted()
        torch.testing.assert_close(output, original())
        assert output.shape == launch.output_shape
        assert int(counters[0]) == launch.counters.mul


def test_the_build_without_counters_computes_the_same_and_counts_nothing() -> None:
    counting, silent = build_kernels(), build_kernels(counting_cost.WITHOUT_COUNTERS)
    for case in counting_cost.LAYERS.values():
        operands = case.tensors()
        expected, counted = counting_cost.layer_run(counting, case, operands, count_zero=True)()
        output, nothing = counting_cost.layer_run(silent, case, operands, count_zero=True)()
        assert torch.equal(output, expected)
        assert min(counted.mul, counted.add, counted.zero, counted.lane) > 0
        assert bytes(nothing) == bytes(Counters())


def test_the_roofline_has_two_sides() -> None:
    peak = Peak(flops=100.0, bytes_per_second=10.0)
    assert [peak.attainable(flops, 2.0) for flops in (4.0, 20.0, 60.0)] == [20.0, 100.0, 100.0]


@pytest.mark.parametrize("name", counting_cost.LAYERS)
def test_a_layer_of_another_dtype_and_torch_compute_the_same(name: str) -> None:
    with torch.no_grad():
        counted, original = cpu_dtypes.layer_in(counting_cost.LAYERS[name], torch.float64)
        torch.testing.assert_close(counted(), original())


@pytest.mark.slow
def test_it_measures_all_that_it_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu_models, "MODELS", {"mobilenet_v3_small": 2})
    monkeypatch.setattr(cpu_models, "BATCHES", (1,))
    monkeypatch.setattr(cpu_models, "SIZES", (64,))
    threads = torch.get_num_threads()
    try:
        measured = cpu.measure(1, [1])
    finally:
        torch.set_num_threads(threads)
    cpu.print_tables(measured)
    cpu.plot(measured, tmp_path / "cpu.png")
    assert [(row["model"], row["batch"]) for row in measured["models"]] == [
        ("mobilenet_v3_small", 2),
        ("mobilenet_v3_small", 1),
    ]
    assert {row["dtype"] for row in measured["dtypes"]} == {"float64", "bfloat16", "float16"}
    assert {row["module"] for row in measured["layers"]} >= {"features.0.0", "classifier.3"}
    figures = [row["median"] for row in (*measured["models"], *measured["training"], *measured["zero"])]
    assert min(figures) > 0
    assert measured["memory"]["ratio"] > 0
    assert (tmp_path / "cpu.png").stat().st_size > 0


def test_the_original_model_is_timed_as_if_no_session_were_open() -> None:
    linear = nn.Linear(3, 3)
    with flopcuda.instrument(linear) as session:
        with cpu_models.plain_torch():
            assert not _get_current_dispatch_mode_stack()
            assert not nn.modules.module._has_any_global_hook()
        linear(torch.ones(2, 3))
    assert session.report().total.counters.macs == 2 * 3 * 3
    assert not nn.modules.module._has_any_global_hook()
