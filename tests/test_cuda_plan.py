"""Launch plans of the CUDA kernels: every output is computed once, no limit of a grid is passed, bad input is named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cuda_plan import ROOT, Addresses, Conv2d, Kernel, Linear, Plan, PlanError, Planner, build_planner

MAX_GRID_X = 2**31 - 1


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    return build_planner(tmp_path_factory.mktemp("plan"))


def kernels_for(planner: Planner, problem: Conv2d | Linear) -> list[Kernel]:
    """Those of float32 and float64, but for tensor cores; split ones too, whose reductions are not."""
    kernels = [kernel for kernel in planner.kernels() if re.search("_f32_|_f64_(?!mma)", kernel.name)]
    return [kernel for kernel in kernels if kernel.is_conv == isinstance(problem, Conv2d)]


def plan_or_refusal(planner: Planner, problem: Conv2d | Linear, kernel: Kernel) -> Plan | str:
    try:
        return planner.plan(problem, kernel, is_float64=kernel.is_float64)
    except PlanError as error:
        return str(error)


def outputs_of_conv_block(plan: Plan, kernel: Kernel, problem: Conv2d, block: int) -> Iterator[tuple[int, int]]:
    """(channel, column) of every output of a block, by the order of blocks that params.h states."""
    rows = problem.out_channels // problem.groups
    if kernel.is_direct:
        channel, column_tile = divmod(block, plan.parameters["column_tiles"])
        group, row_tile = divmod(channel, rows)
    else:
        rest, row_tile = divmod(block, plan.parameters["row_tiles"])
        group, column_tile = divmod(rest, plan.parameters["column_tiles"])
    columns = problem.batch * problem.out_height * problem.out_width
    for row in range(row_tile * kernel.block_m, min((row_tile + 1) * kernel.block_m, rows)):
        for column in range(column_tile * kernel.block_n, min((column_tile + 1) * kernel.block_n, columns)):
            yield group * rows + row, column


def outputs_of_linear_block(plan: Plan, kernel: Kernel, problem: Linear, block: int) -> Iterator[tuple[int, int]]:
    rest, column_tile = divmod(block, plan.parameters["column_tiles"])
    product, row_tile = divmod(rest, plan.parameters["row_tiles"])
    for row in range(row_tile * kernel.block_m, min((row_tile + 1) * kernel.block_m, problem.rows)):
        first = column_tile * kernel.block_n
        for column in range(first, min(first + kernel.block_n, problem.out_features)):
            yield product * problem.rows + row, column


CONV2D_PROBLEMS = [
    Conv2d(),
    Conv2d(batch=3, out_channels=130, out_height=5, out_width=9),
    Conv2d(batch=2, in_channels=6, out_channels=15, groups=3, out_height=13, out_width=11),
    Conv2d(batch=1, in_channels=129, out_channels=129, groups=129, out_height=3, out_width=5),
    Conv2d(batch=700, out_channels=2, out_height=1, out_width=1),
]
LINEAR_PROBLEMS = [Linear(), Linear(129, 3, 257), Linear(1, 1, 1000), Linear(300, 1, 5), Linear(128, 8, 128)]
LINEAR_PROBLEMS += [Linear(130, 3, 70, batch=3), Linear(1, 2, 3, batch=300)]


@pytest.mark.parametrize("problem", [*CONV2D_PROBLEMS, *LINEAR_PROBLEMS], ids=str)
def test_blocks_cover_every_output_once(planner: Planner, problem: Conv2d | Linear) -> None:
    for kernel in kernels_for(planner, problem):
        plan = planner.plan(problem, kernel, is_float64=kernel.is_float64)
        if isinstance(problem, Conv2d):
            rows, columns = problem.out_channels, problem.batch * problem.out_height * problem.out_width
            blocks = (outputs_of_conv_block(plan, kernel, problem, block) for block in range(plan.grid[0]))
        else:
            rows, columns = problem.batch * problem.rows, problem.out_features
            blocks = (outputs_of_linear_block(plan, kernel, problem, block) for block in range(plan.grid[0]))
        times = Counter(output for block in blocks for output in block)
        assert set(times.values()) == {1}, kernel.name
        assert set(times) == {(row, column) for row in range(rows) for column in range(columns)}, kernel.name


HUGE_PROBLEMS = [
    # More than 2^31 elements of input, output or both; more tiles than a grid's y or z could have.
    Conv2d(2**20, 64, 56, 56, 64, 56, 56, 3, 3, pad_top=1, pad_left=1),
    Conv2d(1, 3, 32768, 32767, 64, 32768, 32767, 3, 3, pad_top=1, pad_left=1),
    Conv2d(1, 2**24, 8, 8, 2**24, 8, 8, groups=2**24),
    Conv2d(2**40, 1, 1, 1, 1, 1, 1),
    Linear(2**36, 64, 64),
    Linear(2**20, 2**16, 2**20),
    Linear(1, 2**25 - 8, 2**20),
]


@pytest.mark.parametrize("problem", HUGE_PROBLEMS, ids=str)
def test_huge_problems_stay_within_the_limits_of_a_grid(planner: Planner, problem: Conv2d | Linear) -> None:
    for kernel in kernels_for(planner, problem):
        plan = plan_or_refusal(planner, problem, kernel)
        if isinstance(plan, str):
            assert re.search(
                r"would need \d+ blocks, but a grid has at most|would need offsets of up to \d+ elem", plan
            )
            continue
        assert 0 < plan.grid[0] <= MAX_GRID_X
        assert plan.grid[1:] == (1, 1)
        if isinstance(problem, Conv2d):
            assert plan.parameters["columns"] == problem.batch * problem.out_height * problem.out_width
            groups = problem.out_channels if kernel.is_direct else problem.groups
            row_tiles = 1 if kernel.is_direct else plan.parameters["row_tiles"]
            assert plan.grid[0] == row_tiles * plan.parameters["column_tiles"] * groups
            assert plan.parameters["column_tiles"] == -(-plan.parameters["columns"] // kernel.block_n)
        else:
            assert plan.parameters["column_tiles"] == -(-problem.out_features // kernel.block_n)
            assert plan.grid[0] == plan.parameters["column_tiles"] * -(-problem.rows // kernel.block_m)


@pytest.mark.parametrize("problem", HUGE_PROBLEMS[:3] + HUGE_PROBLEMS[4:], ids=str)
def test_the_planner_finds_a_kernel_for_a_huge_problem(planner: Planner, problem: Conv2d | Linear) -> None:
    assert planner.plan(problem).grid[0] <= MAX_GRID_X


def test_kernels_come_in_pairs_with_names_that_say_the_tile(planner: Planner) -> None:
    kernels = [kernel for kernel in planner.kernels() if re.search("_f32_|_f64_(?!mma)", kernel.name)]
    by_name = {kernel.name: kernel for kernel in planner.kernels()}
    assert len(by_name) == len(planner.kernels())
    plain_kernels = [kernel for kernel in kernels if not (kernel.counts_zero or kernel.is_split)]
    for plain in plain_kernels:
        counting = by_name[f"{plain.name}_count_zero"]
        assert counting == replace(plain, index=plain.index + 1, counts_zero=True, name=counting.name)
        split = by_name.get(f"{plain.name}_split")
        assert (split is None) == plain.is_direct
        if split:
            assert split == replace(plain, index=plain.index + 2, is_split=True, name=split.name)
        operation = "conv" if plain.is_conv else "linear"
        number = "f64" if plain.is_float64 else "f32"
        tile = "direct" if plain.is_direct else f"{plain.block_m}x{plain.block_n}x{plain.block_k}"
        tile = f"few_outputs_{plain.block_n}" if tile.startswith("1x") else tile
        assert re.fullmatch(f"flopcuda_{operation}_{number}_{tile}", plain.name)
        assert (plain.block_m == 1) == tile.startswith(("direct", "few_outputs"))
        assert (plain.max_taps > 64) == plain.is_conv
        assert plain.threads >= 128


def test_a_plan_launches_the_kernel_it_names(planner: Planner) -> None:
    kernels = {kernel.name: kernel for kernel in planner.kernels()}
    problems: list[Conv2d | Linear] = [*CONV2D_PROBLEMS, *LINEAR_PROBLEMS]
    for problem, count_zero, is_float64 in product(problems, (False, True), (False, True)):
        plan = planner.plan(problem, count_zero=count_zero, is_float64=is_float64)
        kernel = kernels[plan.kernel]
        assert (kernel.counts_zero, kernel.is_float64) == (count_zero, is_float64)
        assert kernel.is_conv == isinstance(problem, Conv2d)
        assert plan.block == (kernel.threads, 1, 1)
        assert plan.shared_bytes == 0
        assert plan.parameter_bytes == (800 if kernel.is_conv else 104)


@pytest.mark.parametrize(
    ("problem", "tile"),
    [
        (Conv2d(32, 256, 56, 56, 256, 56, 56, 3, 3, pad_top=1, pad_left=1), "128x128x16"),
        (Conv2d(1, 512, 7, 7, 512, 7, 7, 3, 3, pad_top=1, pad_left=1), "64x64x16_split"),
        (Conv2d(64, 64, 112, 112, 24, 112, 112), "32x128x16"),
        (Conv2d(8, 96, 56, 56, 96, 56, 56, 3, 3, pad_top=1, pad_left=1, groups=96), "direct"),
        (Conv2d(256, 32, 58, 58, 256, 3, 3, 56, 56), "128x128x16_split"),
        (Conv2d(1, 64, 32768, 4096, 64, 32768, 4096), "direct"),  # 2**33 elements of one image
        (Linear(4096, 4096, 4096), "128x128x16"),
        (Linear(8, 4096, 2**17), "32x128x16"),
    ],
    ids=str,
)
def test_the_tile_suits_the_problem(planner: Planner, problem: Conv2d | Linear, tile: str) -> None:
    assert planner.plan(problem).kernel.split("_f32_")[1] == tile


def test_vectors_are_stored_only_where_all_rows_are_aligned(planner: Planner) -> None:
    even, odd = Conv2d(in_channels=4), Conv2d(in_channels=3, out_height=3, out_width=3)
    assert planner.plan(even).parameters["output_aligned"] == 1
    assert planner.plan(even, addresses=Addresses(output=0x3008)).parameters["output_aligned"] == 0
    assert planner.plan(odd).parameters["output_aligned"] == 0
    assert planner.plan(Linear(5, 8, 12)).parameters == {"row_tiles": 1, "column_tiles": 1, "output_aligned": 1}
    assert planner.plan(Linear(5, 8, 11)).parameters["output_aligned"] == 0
    assert planner.plan(Linear(5, 8, 12), addresses=Addresses(output=0x3004)).parameters["output_aligned"] == 0


@pytest.mark.parametrize("problem", [Conv2d(batch=0), Linear(rows=0), Linear(batch=0)], ids=str)
def test_an_empty_output_is_an_empty_grid(planner: Planner, problem: Conv2d | Linear) -> None:
    plan = planner.plan(problem, addresses=Addresses(input=0, output=0))
    assert plan.grid == (0, 1, 1)


@given(divisor=st.integers(1, 2**30 - 1), n=st.integers(0, 2**31 - 1), multiple=st.integers(0, 2**31 - 1))
@settings(max_examples=2000)
def test_fast_division_divides(planner: Planner, divisor: int, n: int, multiple: int) -> None:
    width = min(divisor, 2**25 - 8)
    planner.plan(Conv2d(in_width=width, kernel_width=width, out_width=1))
    near = min(multiple * width, 2**31 - 1) // width * width
    for dividend in {n, near, max(near - 1, 0), 2**31 - 1}:
        assert planner.divide_by_kernel_width(dividend) == dividend // width


@pytest.mark.parametrize(
    ("problem", "addresses", "sentence"),
    [
        (Conv2d(stride_width=0), Addresses(), "width stride is 0"),
        (Conv2d(dilation_height=-1), Addresses(), "height dilation is -1"),
        (Conv2d(kernel_height=0), Addresses(), "kernel height is 0"),
        (Conv2d(pad_top=-1), Addresses(), "height padding is -1"),
        (Conv2d(batch=-1), Addresses(), "batch is -1"),
        (Conv2d(in_channels=3, out_channels=4, groups=2), Addresses(), "do not both divide into 2 groups"),
        (Conv2d(in_channels=4, out_channels=3, groups=2), Addresses(), "do not both divide into 2 groups"),
        (Conv2d(out_height=2**20, out_width=2**20), Addresses(), "pixels of an output is 1099511627776"),
        (Conv2d(out_width=2**20, stride_width=2**20), Addresses(), "the padded input's width is"),
        (Conv2d(kernel_width=2**20, dilation_width=2**20), Addresses(), "the dilated kernel's width is"),
        (Conv2d(in_channels=2**26), Addresses(), "products of an output is 67108864"),
        (Conv2d(batch=2**62), Addresses(), "elements overflows a 64-bit integer"),
        (Conv2d(), Addresses(input=0), "an operand is a null pointer"),
        (Conv2d(), Addresses(output=0), "the output is a null pointer"),
        (Linear(), Addresses(counters=0), "the counter record is a null pointer"),
        (Linear(rows=-3), Addresses(), "rows is -3"),
        (Linear(out_features=0), Addresses(), "output features is 0"),
        (Linear(in_features=2**26), Addresses(), "products of an output is 67108864"),
        (Linear(rows=2**62, in_features=64), Addresses(), "elements overflows a 64-bit integer"),
    ],
    ids=str,
)
def test_what_cannot_be_launched_is_named(
    planner: Planner, problem: Conv2d | Linear, addresses: Addresses, sentence: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(sentence)) as caught:
        planner.plan(problem, addresses=addresses)
    assert "\n" not in str(caught.value)


def test_a_kernel_of_another_operation_is_refused(planner: Planner) -> None:
    linear = kernels_for(planner, Linear())[0]
    with pytest.raises(PlanError, match="is a kernel of another operation"):
        planner.plan(Conv2d(), linear)


def test_a_kernel_of_another_type_is_refused(planner: Planner) -> None:
    kernel = kernels_for(planner, Linear())[0]
    with pytest.raises(PlanError, match="is a kernel of another type than the tensors"):
        planner.plan(Linear(), kernel, is_float64=not kernel.is_float64)


def test_a_kernel_with_a_table_of_taps_refuses_more_than_fit(planner: Planner) -> None:
    largest, larger = (Conv2d(in_width=width, kernel_width=width, out_width=1) for width in (64, 65))
    for kernel in kernels_for(planner, largest):
        assert isinstance(plan_or_refusal(planner, largest, kernel), Plan)
        refusal = plan_or_refusal(planner, larger, kernel)
        if kernel.max_taps < 65:
            assert refusal == f"{kernel.name} takes kernels of up to 64 taps, not of 65"
        else:
            assert isinstance(refusal, Plan)


def test_the_planner_includes_no_cuda_header() -> None:
    for path in [*(ROOT / "csrc/cuda").glob("*.h"), *(ROOT / "csrc/cuda").glob("*.cpp")]:
        assert not re.search(r"#include\s*[<\"](cuda|driver_types|vector_types)\w*\.h", path.read_text()), path.name
