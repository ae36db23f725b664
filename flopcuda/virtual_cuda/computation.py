"""One call of an operator on a virtual device: what the CPU computes, from CPU tensors over the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import TreeSpec, tree_leaves, tree_map_only, tree_unflatten

from flopcuda.virtual_cuda import randomness
from flopcuda.virtual_cuda.memory import CPU, partner

Operator = OpOverload[..., Any]
Kernel = Callable[..., Any]

#: Operators that can be called with numbers for tensors from Python; from C++, where numbers are tensors, all can.
_TAKE_NUMBERS = {"add", "div", "floor_divide", "mul", "sub", "true_divide"}
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


class HostOperator:
    """An operator, the code that computes it on the CPU, and what its schema says of the arguments."""

    def __init__(self, op: Operator, kernel: Kernel) -> None:
        arguments = op._schema.arguments
        self.op = op
        self.kernel = kernel
        self.name = op._schema.name.removeprefix("aten::")
        self.out_names = [argument.name for argument in arguments if argument.is_out]
        self.generator_index = next((i for i, a in enumerate(arguments) if "Generator" in str(a.type)), None)
        self.is_random = self.generator_index is not None or torch.Tag.nondeterministic_seeded in op.tags

        self.tensor_indices = [i for i, a in enumerate(arguments) if str(a.type) == "Tensor"]
        if self.name.rstrip("_") in _TAKE_NUMBERS:
            self.tensor_indices = []

    def numbers_to_tensors(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Tensors in the place of numbers where the schema wants tensors, of dtypes that change no result's."""
        numbers = [i for i in self.tensor_indices if i < len(args) and isinstance(args[i], (bool, int, float, complex))]
        if not numbers:
            return args
        other = next((arg for arg in args if isinstance(arg, Tensor)), torch.empty(0, dtype=torch.bool, device=CPU))

        def tensor(number: Any) -> Tensor:
            return torch.tensor(number, dtype=torch.result_type(other, number), device=CPU)

        return tuple(tensor(arg) if i in numbers else arg for i, arg in enumerate(args))

    @property
    def generator_name(self) -> str | None:
        return None if self.generator_index is None else self.op._schema.arguments[self.generator_index].name

    def take_generator(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """The arguments by position without a generator, which is always the last of them, and the generator."""
        if self.generator_index is None:
            return args, None
        if self.generator_index < len(args):
            return args[: self.generator_index], args[self.generator_index]
        return args, kwargs.pop(str(self.generator_name), None)


class Computation:
    """An operator with its operands as CPU tensors: computes as often as it is asked to.

    Args:
        operator: what to compute.
        operands: leaves of its arguments, but for a generator and ``out``.
        structure: of the tuple of arguments and the dictionary of keyword arguments.
        outs: empty tensors for ``out`` arguments, which take the sizes of the results.
        out_structure: of the dictionary of these.
        generator: the CUDA generator that a random operator draws from, else None.
    """

    def __init__(
        self,
        operator: HostOperator,
        operands: list[Any],
        structure: TreeSpec,
        outs: list[Tensor],
        out_structure: TreeSpec,
        generator: torch.Generator | None,
    ) -> None:
        self.operator = operator
        self.operands = operands
        self.structure = structure
        self.outs = outs
        self.out_structure = out_structure
        self.generator = generator

    def results(self) -> Any:
        """Compute; what is returned may be an operand, an element of ``outs`` or new."""
        if self.generator is None:
            return self._apply(self.operands, self.outs)
        generator = randomness.stand_in(self.generator)
        name = self.operator.generator_name
        if name is not None:
            return self._apply(self.operands, self.outs, **{name: generator})
        with randomness.as_default(generator):
            return self._apply(self.operands, self.outs)

    def results_without_computing(self) -> Any:
        """The same with tensors that have no data for what is new; ``outs`` get their sizes.

        Raises:
            RuntimeError: the results' sizes depend on values.
        """
        mode = FakeTensorMode()
        twins = [(mode.from_tensor(x) if isinstance(x, Tensor) else x, x) for x in (*self.operands, *self.outs)]
        fakes = [fake for fake, _ in twins]
        split = len(self.operands)
        try:
            with mode:
                results = self._apply(fakes[:split], fakes[split:])
        except RuntimeError as error:
            raise RuntimeError(f"{self.operator.op} can't be captured in a CUDA graph: {error}") from error
        for fake, out in zip(fakes[split:], self.outs, strict=True):
            out.resize_(fake.shape)

        def original(result: Tensor) -> Tensor:
            known = partner(twins, result)
            return result if known is None else known

        return tree_map_only(Tensor, original, results)

    def compute_into(self, targets: Sequence[Tensor | None]) -> None:
        """Compute, and copy each result to its target, if it has one."""
        with on_the_host(), torch.inference_mode(), torch._C._DisableTorchDispatch():
            copy_results(tree_leaves(self.results()), targets)

    def _apply(self, operands: list[Any], outs: list[Any], **more: Any) -> Any:
        args, kwargs = tree_unflatten(operands, self.structure)
        return self.operator.kernel(*args, **kwargs, **tree_unflatten(outs, self.out_structure), **more)


def copy_results(results: Sequence[Any], targets: Sequence[Tensor | None]) -> None:
    for result, target in zip(results, targets, strict=True):
        if target is not None:
            target.copy_(result)


@contextmanager
def on_the_host() -> Iterator[None]:
    """Neither what a user laid over torch's functions nor the CPU's autocast may see that CPU kernels run."""
    with torch._C.DisableTorchFunction(), torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
        yield
