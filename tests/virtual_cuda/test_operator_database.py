"""torch's own database of operators with sample inputs: values and gradients on the virtual device are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

pytest.importorskip("expecttest")  # which torch's own tests need
from torch.testing._internal.common_methods_invocations import op_db

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.usefixtures("_on_the_virtual_device")]

SAMPLES = 3
#: Samples that lose their meaning on the way to a device, layouts that the virtual device does not take, what has no
#: values, and what compiles CUDA at run time.
LEFT_OUT = ("as_strided.partial_views", "empty", "jagged", "jiterator", "nested", "sparse", "tensor_split")


def full_name(operator: Any) -> str:
    return ".".join(filter(None, (operator.name, operator.variant_test_name)))


OPERATORS = [operator for operator in op_db if not any(word in full_name(operator) for word in LEFT_OUT)]


def to_device(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cuda().requires_grad_(value.requires_grad)
    return "cuda" if value in ("cpu", torch.device("cpu")) else value


def values(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return function(*args, **kwargs)


def gradients(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Of the sum of all results' absolute values."""
    results = [x for x in tree_leaves(function(*args, **kwargs)) if isinstance(x, Tensor) and x.requires_grad]
    inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.requires_grad]
    if not results:
        return ()
    return torch.autograd.grad(sum(x.abs().sum() for x in results), inputs, allow_unused=True)


def assert_same(result: Any, expected: Any, random: bool) -> None:
    for x, y in zip(tree_leaves(result), tree_leaves(expected), strict=True):
        if not isinstance(y, Tensor) or y.layout != torch.strided:
            continue
        assert x.is_cuda or y.numel() == 0
        assert x.dtype == y.dtype
        if not random:
            torch.testing.assert_close(x.detach().cpu(), y.detach(), equal_nan=True)


@pytest.fixture
def seedings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds that the database's own wrappers set: they wrap what is random, whose values a device need not share."""
    seeds: list[int] = []
    seed = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda value: (seeds.append(value), seed(value))[1])
    return seeds


@pytest.mark.parametrize(
    ("outcome", "dtype"),
    [(values, torch.float32), (values, torch.complex64), (values, torch.int32), (gradients, torch.float32)],
    ids=["values", "complex values", "integer values", "gradients"],
)
@pytest.mark.parametrize("operator", OPERATORS, ids=full_name)
@pytest.mark.filterwarnings("ignore")
def test_an_operator_of_the_database(
    operator: Any, outcome: Callable[..., Any], dtype: torch.dtype, seedings: list[int]
) -> None:
    of_gradients = outcome is gradients
    if dtype not in operator.dtypes or (of_gradients and not operator.supports_autograd):
        pytest.skip("torch has no such samples")
    for sample in islice(operator.sample_inputs("cpu", dtype, requires_grad=of_gradients), SAMPLES):
        args, kwargs = (sample.input, *sample.args), sample.kwargs
        device_args, device_kwargs = tree_map(to_device, args), tree_map(to_device, kwargs)
        expected = outcome(operator.op, args, kwargs)
        try:
            result = outcome(operator.op, device_args, device_kwargs)
        except NotImplementedError as error:
            if "from the 'CUDA' backend" in str(error):
                pytest.skip("torch has no CUDA kernel")
            raise
        assert_same(result, expected, random=bool(seedings))
