"""Causal attention is computed as triangles: values and gradients against torch, counts against brute force."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import flopcuda
from flopcuda import _C
from flopcuda.formulas import TriangleSizes, triangle_exact_add, triangle_exact_mul, triangle_skipped_mul
from flopcuda.geometry import exact_counts, skipped_products
from tests.cuda_kernels import needs_kernels
from tests.recorder import Recorder

attend = functional.scaled_dot_product_attention
# Of values and gradients, which torch's own fused code computes in another order.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
DTYPES = list(TOLERANCES)


def below_the_diagonal(rows: int, columns: int) -> int:
    """Elements of a matrix in columns that are not greater than the row, one by one."""
    return sum(column <= row for row in range(rows) for column in range(columns))


def make_factors(
    queries: int, keys: int, width: int, value_width: int, leading: tuple[int, ...] = (2, 3), **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(queries + 10 * keys)
    shapes = (queries, width), (keys, width), (keys, value_width)
    query, key, value = (torch.randn(*leading, *shape, generator=generator) for shape in shapes)
    return query.to(**options), key.to(**options), value.to(**options)


def results_of(attention: Callable[..., Tensor], factors: tuple[Tensor, ...], **options: Any) -> list[Tensor]:
    """The output, and the gradients of a sum that weighs each of its elements differently."""
    leaves = [factor.detach().requires_grad_() for factor in factors]
    torch.manual_seed(0)  # dropout
    output = attention(*leaves, **options)
    weights = torch.linspace(0.5, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad(output, leaves, weights)]


def assert_same(results: list[Tensor], expected: list[Tensor]) -> None:
    for result, reference in zip(results, expected, strict=True):
        assert result.dtype == reference.dtype
        tolerance = TOLERANCES[result.dtype]
        torch.testing.assert_close(result, reference, rtol=tolerance, atol=tolerance)


def as_products() -> AbstractContextManager[None]:
    """Inside, torch computes attention as the products that it is defined by."""
    return sdpa_kernel(SDPBackend.MATH)


def triangles(report: flopcuda.Report) -> list[tuple[str, str | None]]:
    """The phase of each launch, and the triangle that it is of."""
    return [(launch.phase, launch.options.get("triangle")) for launch in report.launches]


FORWARD = [("forward", "output"), ("forward", "input")]
# As torch's engine orders them: of the weights' product, then of the scores'.
BACKWARD = [
    *(("backward_weight", "upper_input"), ("backward_input", "output")),
    *(("backward_weight", "upper_input"), ("backward_input", "input")),
]


def assert_exact(report: flopcuda.Report) -> None:
    """What was counted is what the formula says, and with what was skipped a dense product's."""
    assert report.not_counted == ()
    for launch in report.launches:
        counters = launch.counters
        assert (counters.mul, counters.add, counters.pad) == exact_counts(launch)
        assert counters.mul + skipped_products(launch) == launch.dense_macs


# --- formulas ---


@given(*(st.integers(1, 12) for _ in range(4)), st.sampled_from(["output", "input", "upper_input"]))
def test_formulas_of_a_triangle(batch: int, rows: int, depth: int, columns: int, triangle: str) -> None:
    sizes = TriangleSizes(triangle=triangle, rows=rows, depth=depth, columns=columns, batch=batch)
    is_used = {
        "output": lambda r, k, c: c <= r,
        "input": lambda r, k, c: k <= r,
        "upper_input": lambda r, k, c: k >= r,
    }[triangle]
    products = [(r, k, c) for r in range(rows) for k in range(depth) for c in range(columns)]
    used = [product for product in products if is_used(*product)]
    outputs = {(r, c) for r, _, c in used}
    assert triangle_exact_mul(sizes) == batch * len(used)
    assert triangle_exact_add(sizes) == batch * (len(used) - len(outputs))
    assert triangle_skipped_mul(sizes) == batch * (len(products) - len(used))


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"triangle": "upper"}, {"batch": True}])
def test_sizes_that_are_none_get_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be a positive int|must be one of output, input, upper_input"):
        TriangleSizes(**{"triangle": "output", "rows": 2, "depth": 3, "columns": 4, **wrong})


# --- one call ---


@settings(deadline=None)
@given(
    *(st.integers(1, 20) for _ in range(2)),
    *(st.integers(1, 9) for _ in range(2)),
    st.sampled_from([(), (3,), (2, 3), (1, 2, 2)]),
    st.sampled_from(DTYPES),
)
def test_values_gradients_and_counts(
    queries: int, keys: int, width: int, value_width: int, leading: tuple[int, ...], dtype: torch.dtype
) -> None:
    factors = make_factors(queries, keys, width, value_width, leading, dtype=dtype)
    expected = results_of(attend, factors, is_causal=True)
    with flopcuda.count() as session:
        results = results_of(attend, factors, is_causal=True)
    assert_same(results, expected)
    report = session.report()
    assert_exact(report)
    phases = [launch.phase for launch in report.launches]
    assert phases.count("forward") == phases.count("backward_input") == phases.count("backward_weight") == 2
    heads = factors[0].shape[:-2].numel()
    triangle = below_the_diagonal(queries, keys)
    macs = {
        phase: sum(launch.counters.mul for launch in report.launches if launch.phase == phase) for phase in set(phases)
    }
    assert set(macs.values()) == {heads * triangle * (width + value_width)}


def test_what_is_computed_of_each_product() -> None:
    with flopcuda.count() as session:
        results_of(attend, make_factors(7, 7, 4, 4), is_causal=True)
    assert triangles(session.report()) == FORWARD + BACKWARD


@pytest.mark.parametrize(
    "options",
    [{"scale": 0.3}, {"scale": -0.3}, {"dropout_p": 0.5}, {"enable_gqa": True}],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("lengths", [(7, 7), (4, 9), (9, 4)], ids=str)
def test_options(options: dict[str, Any], lengths: tuple[int, int]) -> None:
    query, key, value = make_factors(*lengths, 8, 8, (2, 4))
    if "enable_gqa" in options:
        key, value = key[:, :2], value[:, :2]
    factors = query, key, value
    with as_products():  # torch's fused code takes no negative scale: it gives NaN
        expected = results_of(attend, factors, is_causal=True, **options)
    with flopcuda.count() as session:
        results = results_of(attend, factors, is_causal=True, **options)
    assert_same(results, expected)
    assert_exact(session.report())
    assert triangles(session.report()) == FORWARD + BACKWARD


@pytest.mark.parametrize(
    "leading", [((2, 1), (1, 3), (2, 3)), ((3,), (2, 3), (3,)), ((), (3,), (2, 3)), ((1,), (), ())], ids=str
)
def test_leading_dimensions_that_broadcast(leading: tuple[tuple[int, ...], ...]) -> None:
    """Where torch folds them into the rows of one product, that is computed in full."""
    factors = tuple(torch.randn(*sizes, 6, 4) for sizes in leading)
    expected = results_of(attend, factors, is_causal=True)
    with flopcuda.count() as session:
        results = results_of(attend, factors, is_causal=True)
    assert_same(results, expected)
    assert_exact(session.report())
    has_matrices = any(len(sizes) == 0 for sizes in leading)
    assert triangles(session.report())[:2] == ([("forward", None)] * 2 if has_matrices else FORWARD)


@pytest.mark.parametrize("which", range(3))
def test_matrices_that_lie_column_by_column(which: int) -> None:
    """torch computes the gradient of such a factor as its transpose."""
    factors = list(make_factors(7, 9, 5, 4, (), dtype=torch.float64))
    factors[which] = factors[which].t().contiguous().t()
    with as_products():
        expected = results_of(attend, tuple(factors), is_causal=True)
    with flopcuda.count() as session:
        results = results_of(attend, tuple(factors), is_causal=True)
    assert_same(results, expected)
    assert_exact(session.report())
    assert None not in {triangle for _, triangle in triangles(session.report())}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    factors = make_factors(7, 9, 4, 5)

    def cast(*tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return attend(*tensors, is_causal=True)

    expected = results_of(cast, factors)
    with flopcuda.count() as session:
        results = results_of(cast, factors)
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, rtol=5e-2, atol=5e-2)
    assert triangles(session.report()) == FORWARD + BACKWARD


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "call", [attend, torch.ops.aten.scaled_dot_product_attention, torch._C._nn.scaled_dot_product_attention]
)
def test_by_whichever_name_it_is_called(call: Callable[..., Tensor], mode: Callable[[], Any]) -> None:
    factors = make_factors(6, 6, 4, 4)
    with flopcuda.count() as session, mode():
        output = call(*factors, None, 0.0, True)
    torch.testing.assert_close(output, attend(*factors, is_causal=True))
    assert triangles(session.report()) == FORWARD


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        # Weights of no width: all scores are equal, and the second product is not taken for the first.
        ([(3, 5, 0), (3, 5, 0), (3, 5, 5)], [("forward", "input")]),
        ([(3, 5, 4), (3, 5, 4), (3, 5, 0)], []),
        ([(0, 5, 4), (0, 5, 4), (0, 5, 4)], []),
    ],
)
def test_empty_factors(shapes: list[tuple[int, ...]], expected: list[tuple[str, str]]) -> None:
    factors = tuple(torch.randn(shape) for shape in shapes)
    with flopcuda.count() as session:
        output = attend(*factors, is_causal=True)
    torch.testing.assert_close(output, attend(*factors, is_causal=True))
    assert triangles(session.report()) == expected


def test_other_attention_is_dense() -> None:
    """No mask, or a mask that says the same: torch is not told that it is causal."""
    factors = make_factors(6, 6, 4, 4)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    with flopcuda.count() as session:
        attend(*factors)
        attend(*factors, attn_mask=mask)
        attend(*factors, is_causal=True)
        attend(*factors)
    assert triangles(session.report()) == 4 * [("forward", None)] + FORWARD + 2 * [("forward", None)]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_only_a_mask_is_searched_for_rows_without_keys(training: bool, is_causal: bool) -> None:
    factors = make_factors(7, 9, 4, 5)
    mask = torch.ones(7, 9, dtype=torch.bool).tril(-1)  # nothing for the first row
    calls: list[tuple[dict[str, Any], bool]] = [({"is_causal": is_causal}, False), ({"attn_mask": mask}, True)]
    for options, searched in calls:
        attention = partial(attend, **options)
        with Recorder() as below, flopcuda.count():
            results = results_of(attention, factors) if training else [attention(*factors)]
        assert ("aten::_safe_softmax" in below.names) == searched
        expected = results_of(attention, factors) if training else [attention(*factors)]
        assert_same(results, expected)


def test_where_zeros_are_counted_all_is_multiplied() -> None:
    factors = tuple(factor.abs() + 0.1 for factor in make_factors(7, 5, 4, 3))
    expected = results_of(attend, factors, is_causal=True)
    with flopcuda.count(count_zero=True) as session:
        results = results_of(attend, factors, is_causal=True)
    assert_same(results, expected)
    scores, weighted, *_ = session.report().launches
    assert (scores.counters.mul, weighted.counters.mul) == (6 * 35 * 4, 6 * 35 * 3)
    assert weighted.counters.zero == 6 * (35 - below_the_diagonal(7, 5)) * 3


def test_a_mistake_gets_torchs_own_error() -> None:
    query, key, value = make_factors(6, 6, 4, 4)
    with flopcuda.count() as session:
        with pytest.raises(RuntimeError, match="attn_mask"):
            attend(query, key, value, torch.ones(6, 6), is_causal=True)
        with pytest.raises(RuntimeError):
            attend(query, key[..., :3], value, is_causal=True)
        attend(query, key, value)
    assert triangles(session.report()) == 2 * [("forward", None)]


@needs_kernels
def test_512_tokens_in_tiles() -> None:
    """Half of the products, and the tiles on or below the diagonal: of scores, 36 of 64 if they are 64 by 64."""
    factors = make_factors(512, 512, 16, 16, (2,))
    with flopcuda.count(backend="ptxvm") as session:
        attend(*factors, is_causal=True)
    assert triangles(session.report()) == FORWARD
    for launch in session.report().launches:
        assert launch.counters.mul / launch.dense_macs == 513 / 1024
        assert launch.executed_macs == launch.counters.lane
    scores = session.report().launches[0]
    block_m, block_n, _ = next(entry["tile"] for entry in _C.cuda_kernels() if entry["name"] == scores.kernel)
    corners = itertools.product(range(0, 512, block_m), range(0, 512, block_n))
    tiles = sum(column < row + block_m for row, column in corners)
    assert scores.counters.lane == 2 * 16 * tiles * block_m * block_n


# --- gradients of gradients, transforms, checkpoints, threads of modes ---


def test_second_derivatives() -> None:
    factors = tuple(factor.requires_grad_() for factor in make_factors(5, 5, 3, 2, (2,), dtype=torch.float64))

    def second(*tensors: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(attend(*tensors, is_causal=True).square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in first), tensors)

    with as_products():  # fused code has none
        expected = second(*factors)
    with flopcuda.count() as session:
        results = second(*factors)
    torch.testing.assert_close(results, expected)
    assert_exact(session.report())
    assert None not in {triangle for phase, triangle in triangles(session.report()) if phase != "backward"}


@pytest.mark.parametrize("transform", ["vmap", "vmap of queries", "grad", "jvp"])
def test_under_transforms_it_is_dense(transform: str) -> None:
    query, key, value = make_factors(5, 5, 4, 4, (3, 2))

    def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query, key, value, is_causal=True)

    def call() -> Tensor:
        if transform == "vmap":
            return torch.func.vmap(causal)(query, key, value)
        if transform == "vmap of queries":
            return torch.func.vmap(causal, in_dims=(0, None, None))(query, key[0], value[0])
        if transform == "grad":
            return torch.func.grad(lambda query: causal(query, key, value).sum())(query)
        return torch.func.jvp(lambda query: causal(query, key, value), (query,), (torch.ones_like(query),))[1]

    with as_products():
        expected = call()
    with flopcuda.count() as session:
        result = call()
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)
    assert {triangle for _, triangle in triangles(session.report())} == {None}
    assert session.report().not_counted == ()


def test_a_checkpoint_that_computes_it_again() -> None:
    factors = make_factors(6, 6, 4, 4)

    def checkpointed(*tensors: Tensor) -> Tensor:
        return checkpoint(lambda *again: attend(*again, is_causal=True), *tensors, use_reentrant=False)

    expected = results_of(attend, factors, is_causal=True)
    with flopcuda.count() as session:
        results = results_of(checkpointed, factors)
    assert_same(results, expected)
    assert_exact(session.report())
    assert [triangle for _, triangle in triangles(session.report())].count("output") >= 2


def test_one_session_inside_another() -> None:
    """The inner one counts; where it does not look, the outer one knows the products as well."""
    model, factors = Causal(8, 2), make_factors(6, 6, 4, 4)
    with flopcuda.count() as outer, flopcuda.instrument(model) as inner, torch.no_grad():
        model(torch.randn(3, 5, 8))
        attend(*factors, is_causal=True)
    assert triangles(outer.report()) == FORWARD
    assert [triangle for _, triangle in triangles(inner.report())] == [None, "output", "input", None]


# --- models ---


class Causal(nn.Module):
    """Self-attention by torch's function."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projections, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.projections(x).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.out(attend(query, key, value, is_causal=True).transpose(1, 2).flatten(2))


class CausalTransformer(nn.Module):
    """A language model's parts: torch's own layer, told that its mask is causal, and attention by its function."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.attention = Causal(8, 2)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        x = self.layer(x, src_mask=mask, is_causal=True)
        return self.head(x + self.attention(x))


TOKENS = torch.arange(3 * 9).view(3, 9) % 11


def step(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    output = model(tokens)
    return [output, *torch.autograd.grad(output.square().sum(), list(model.parameters()))]


@pytest.mark.parametrize("backend", ["native", pytest.param("ptxvm", marks=needs_kernels)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_causal_transformer(backend: str, device: str) -> None:
    if (backend, device) == ("ptxvm", "cuda"):
        pytest.skip("the PTX machine takes tensors on the CPU")
    model, tokens = CausalTransformer().to(device), TOKENS.to(device)
    expected, before = step(model, tokens), copy.deepcopy(model.state_dict())
    with flopcuda.instrument(model, backend=backend) as session:
        results = step(model, tokens)
    torch.testing.assert_close(results, expected, atol=1e-3, rtol=1e-3)
    report = session.report()
    assert_exact(report)
    for name in ("layer.self_attn", "attention"):
        own = [launch for launch in report.launches if launch.module == name and launch.op == "matmul"]
        forward = sum(
            launch.counters.mul for launch in own if launch.phase == "forward" and "triangle" in launch.options
        )
        assert forward == 3 * 2 * below_the_diagonal(9, 9) * (4 + 4)
        assert sum("triangle" in launch.options for launch in own) == 6
    if backend == "ptxvm":
        assert report.total.executed_macs == report.total.lane
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)
    assert type(model.head) is nn.Linear
    torch.testing.assert_close(step(model, tokens), expected, atol=0, rtol=0)


def test_a_compiled_model() -> None:
    model = CausalTransformer().eval()
    with torch.no_grad(), flopcuda.instrument(model) as session:
        expected = model(TOKENS)
        eager = session.report().total.counters
        session.reset()
        torch.testing.assert_close(torch.compile(model, backend="eager")(TOKENS), expected)
        assert session.report().total.counters == eager


def test_validation_knows_the_triangle() -> None:
    """The exact formula is the triangle's; those that others published take attention for dense."""
    validation = flopcuda.validate(CausalTransformer(), TOKENS, training_step=True)
    assert validation.ok
    layer = next(layer for layer in validation.layers if layer.name == "layer.self_attn")
    skipped = 3 * 2 * (81 - below_the_diagonal(9, 9)) * (4 + 4)
    assert layer.formulas["exact"] == layer.counted.flops
    assert layer.formulas["macs"] == layer.counted.macs + skipped
    assert [report.unexplained for report in validation.tools] == [0] * len(validation.tools)
    assert validation.training_step is not None
    assert [report.unexplained for report in validation.training_step.tools] == [0]


def test_a_session_leaves_no_trace() -> None:
    """Afterwards, and in modules that are not the model's, attention is torch's own."""
    model, factors = Causal(8, 2), make_factors(6, 6, 4, 4)
    with flopcuda.instrument(model) as session, torch.no_grad():
        attend(*factors, is_causal=True)
        assert session.report().launches == ()
        model(torch.randn(3, 5, 8))
    for _ in range(2):
        attend(*factors, is_causal=True)
    assert len(session.report().launches) == 4
