"""Reductions that several blocks share, on the PTX machine with all its checks on: outputs, counters, additions.

Outputs are held against float64; counters against brute force and the instructions that were executed.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from flopcuda import _C, ptx
from flopcuda.ptx_backend import MachineBackend, PlannedLaunch, plan
from tests import test_cuda_tensor_kernels
from tests.cpu_kernels.oracle import LinearCase
from tests.cuda_kernels import (
    DTYPES,
    TENSOR_KERNELS,
    Case,
    check_case,
    counts,
    kernel_texts,
    needs_kernels,
    patched_units,
    plan_case,
    reference,
)
from tests.patches import Patch, sampled
from tests.ptxvm.harness import needs_nvcc

pytestmark = needs_kernels

ENTRIES = {str(kernel["name"]): kernel for kernel in _C.cuda_kernels() if kernel["is_split"]}
LINEAR_KERNELS = [name for name in ENTRIES if "_linear_" in name]
MAX_SPLITS = 64

property_settings = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def backend() -> MachineBackend:
    return MachineBackend(ptx.Machine())


def check(backend: MachineBackend, case: Case, kernel: str, splits: int, seed: int = 0) -> Tensor:
    """Outputs, counters and lanes, as the tests of the kernels hold them."""
    check_kernel = test_cuda_tensor_kernels.check_case if kernel in TENSOR_KERNELS else check_case
    return check_kernel(backend, case, kernel, seed, splits=splits)


def slice_of(kernel: str) -> int:
    """Products of an output between two barriers."""
    return int(ENTRIES[kernel]["tile"][2])


def some_case(kernel: str, slices: int = 5) -> LinearCase:
    """Several tiles, edges among them, and a last slice that is not whole."""
    return LinearCase(70, slices * slice_of(kernel) - 3, 133, bias=True)


@pytest.mark.parametrize("splits", range(1, 6))
@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
def test_a_linear_layer_in_so_many_parts(backend: MachineBackend, kernel: str, splits: int) -> None:
    """Five slices: equal parts, parts that differ, and a part for each slice."""
    check(backend, some_case(kernel), kernel, splits)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
def test_as_many_parts_as_there_can_be(backend: MachineBackend, kernel: str) -> None:
    products = slice_of(kernel) * (MAX_SPLITS + 9) + 1
    check(backend, LinearCase(3, products, 5), kernel, MAX_SPLITS)
    with pytest.raises((RuntimeError, ValueError), match=f"{kernel} splits this reduction into 1 to {MAX_SPLITS} part"):
        check(backend, LinearCase(3, products, 5), kernel, MAX_SPLITS + 1)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
@property_settings
@given(
    case=st.builds(LinearCase, st.integers(1, 200), st.integers(1, 600), st.integers(1, 200), st.booleans()),
    splits=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_any_linear_layer(backend: MachineBackend, kernel: str, case: LinearCase, splits: int, seed: int) -> None:
    slices = -(-case.in_features // slice_of(kernel))
    check(backend, case, kernel, min(splits, slices), seed)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
def test_a_batch_of_products(backend: MachineBackend, kernel: str) -> None:
    """Each product has tiles of its own, of several blocks each."""
    batch, rows, depth, columns = 3, 70, 3 * slice_of(kernel) + 5, 65
    input, weight = (torch.randn(batch, *size).to(DTYPES[kernel]) for size in ((rows, depth), (depth, columns)))
    planned = plan("matmul", input, weight, None, False, kernel=kernel, splits=3)
    planned.output.fill_(torch.nan)
    backend.launch(planned)
    outputs = batch * rows * columns
    counted = counts(planned.counters)
    assert (counted["mul"], counted["add"]) == (outputs * depth, outputs * (depth - 1))
    error = 1e-3 if "tf32" in kernel else torch.finfo(DTYPES[kernel]).eps
    allowed = 4 * error * (input.double().abs() @ weight.double().abs())
    assert ((planned.output.double() - input.double() @ weight.double()).abs() <= allowed).all()


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
def test_whole_tiles_are_added_up_once_for_each_part_but_the_first(
    backend: MachineBackend, kernel: str, splits: int
) -> None:
    """No other instruction adds floating-point numbers; edges of tiles are added up, too, and not counted."""
    planned = plan_case(some_case(kernel), some_case(kernel).tensors(dtype=DTYPES[kernel]), kernel, splits)
    executed = backend.launch(planned).counts
    additions = sum(lanes for name, lanes in executed.items() if name in ("add.f32", "add.f64"))
    rows, columns, _ = ENTRIES[kernel]["tile"]
    assert planned.grid == [math.ceil(70 / rows) * math.ceil(133 / columns), 1, splits]
    assert additions == planned.grid[0] * rows * columns * (splits - 1)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
def test_whichever_block_is_last_the_outputs_are_the_same(kernel: str) -> None:
    """In any order of blocks and warps, and on several threads, to the last bit."""
    case = some_case(kernel)
    in_order = check(MachineBackend(ptx.Machine(threads=1)), case, kernel, 4)
    for seed in range(4):
        shuffled = MachineBackend(ptx.Machine(threads=2, seed=seed))
        assert torch.equal(check(shuffled, case, kernel, 4), in_order)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
def test_tickets_are_0_again_after_a_launch(backend: MachineBackend, kernel: str) -> None:
    case = some_case(kernel)
    planned = plan_case(case, case.tensors(dtype=DTYPES[kernel]), kernel, 3)
    sums, tickets = planned.workspace
    assert 4 * planned.grid[0] <= tickets.nbytes <= 4 * (planned.grid[0] + 1)
    rows, columns, _ = ENTRIES[kernel]["tile"]
    assert sums.nbytes == planned.grid[0] * 3 * rows * columns * (8 if "_f64_" in kernel else 4)
    outputs = []
    for _ in range(2):
        planned.output.fill_(torch.nan)
        backend.launch(planned)
        assert not tickets.any()
        outputs.append(planned.output.clone())
    assert torch.equal(*outputs)
    expected = case.expected_counts(*case.tensors()[:2], count_zero=False)
    assert counts(planned.counters)["mul"] == 2 * expected["mul"]


# Defects that counters cannot show, since all that is counted is done: outputs must. The others are in
# test_cuda_mutants.py.
MUTANTS = {
    "the last block but one adds the parts up": Patch("split_sums.cuh", "last) == last);", "last) == last - 1);"),
    "tickets are left as they are": Patch(
        "split_sums.cuh",
        "atomicInc(workspace.tickets + blockIdx.x, last)",
        "atomicAdd(workspace.tickets + blockIdx.x, 1)",
    ),
    "the first part is added up in place of all": Patch(
        "split_sums.cuh", "Memory(workspace, part).add_to(all);", "Memory(workspace, 0).add_to(all);"
    ),
    "a part overwrites another one's sums": Patch(
        "split_sums.cuh", "Memory(workspace, part_index()).write(", "Memory(workspace, part_index() / 2).write("
    ),
    "all tiles share their sums": Patch("split_sums.cuh", "(part) * gridDim.x + blockIdx.x)", "(part) * gridDim.x)"),
    "a part starts where the first one does": Patch(
        "linear.cu", "locate_part<Tile>(params.in_features, Tile::BLOCK_K).first + ", "0 + "
    ),
}


def is_right(planned: PlannedLaunch, case: Case, tensors: tuple[Tensor, Tensor, Tensor | None]) -> bool:
    expected = reference(case, tensors)
    return bool(((planned.output.double() - expected).abs() <= 1e-3).all())


def outputs_are_right(texts: dict[str, str]) -> bool:
    """Of two launches of a plan, with blocks in several orders."""
    kernel = "flopcuda_linear_f32_64x64x16_split"
    case = some_case(kernel)
    tensors = case.tensors()
    for seed in (None, 0, 1):
        backend = MachineBackend(ptx.Machine(threads=1, seed=seed, checks=False), texts)
        planned = plan_case(case, tensors, kernel, 3)
        for _ in range(2):
            planned.output.fill_(torch.nan)
            backend.launch(planned)
            if not is_right(planned, case, tensors):
                return False
    return True


@needs_nvcc
def test_the_outputs_are_right_without_a_defect() -> None:
    assert outputs_are_right(kernel_texts())


@needs_nvcc
def test_every_patch_reaches_a_kernel() -> None:
    assert all(patched_units([patch]) for patch in MUTANTS.values())


@pytest.mark.parametrize("patch", sampled(MUTANTS))
def test_outputs_show_the_defect(patch: Patch) -> None:
    assert not outputs_are_right(kernel_texts([patch]))
