"""torch's operators on a virtual device: the CPU's kernels over the same memory.

torch's own CUDA kernels are machine code for real GPUs, without the PTX that the virtual device executes. Each operator
that has such a kernel gets another one here, for the CUDA dispatch key: it lends its CUDA tensors to the CPU's kernel
and moves what that returns to the device. Autograd, autocast and the other layers of torch's dispatcher lie above and
notice nothing. Operators that only manage memory keep their CUDA kernel, and so do those of any extension.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._prims_common.wrappers import _maybe_resize_out
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from flopcuda.virtual_cuda import capture, recurrent
from flopcuda.virtual_cuda.computation import Computation, HostOperator, Kernel, Operator, copy_results, on_the_host
from flopcuda.virtual_cuda.memory import CPU, Lender, partner

#: Operators whose CUDA code launches no kernel: memory, metadata, and questions about backends.
_KEPT = {
    "_efficientzerotensor",
    "_fused_sdp_choice",
    "_local_scalar_dense",
    "_use_cudnn_ctc_loss",
    "_use_miopen_ctc_loss",
    "empty",
    "empty_strided",
    "is_set_to",
    "record_stream",
    "resize_",
    "set_",
}
#: Operators that have no kernel of their own for CUDA, but code for all devices which launches some.
_ALSO_REPLACED = {"_convolution", "conj_physical_", "copy_", "mode"}
#: Operators whose operands may be on different devices; the second kind takes indices from the CPU.
_ACROSS_DEVICES = {"_foreach_copy_", "copy_"}
_INDEXING = {"_index_put_impl_", "_unsafe_index", "_unsafe_index_put", "index", "index_put", "index_put_"}
#: Of operators that have no CPU kernel.
_FORMULAS: dict[Any, Kernel] = {**torch._decomp.decomposition_table, **recurrent.FORMULAS}
#: A dispatch key without a copy_ of its own, which leads to the code for all devices.
_ANY_DEVICE = torch._C.DispatchKeySet(torch._C.DispatchKey.HPU)

_library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]


def install() -> None:
    """Replace the CUDA kernels of torch's operators, until the process ends."""
    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that kernels are replaced
        for name, op in _replaceable():
            _library.impl(name, _kernel(name, op), "CUDA", allow_override=True)  # type: ignore[no-untyped-call]


def _replaceable() -> Iterator[tuple[str, Operator]]:
    for name in torch._C._dispatch_get_all_op_names():
        base, _, overload = name.removeprefix("aten::").partition(".")
        if not name.startswith("aten::") or base in _KEPT:
            continue
        if base in _ALSO_REPLACED or torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"):
            op = getattr(getattr(torch.ops.aten, base), overload or "default")
            if not op.is_view:
                yield name, op


def _kernel(name: str, op: Operator) -> Kernel:
    if torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, "CPU"):
        operator = HostOperator(op, op)
    elif op in _FORMULAS:
        operator = HostOperator(op, _FORMULAS[op])
    else:
        return _refusal(op)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        if operator.name == "copy_" and _is_memcpy(*args[:2]):
            return op.redispatch(_ANY_DEVICE, *args, **kwargs)
        with on_the_host():
            return _run(operator, args, kwargs)

    return kernel


def _refusal(op: Operator) -> Kernel:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(
            f"{op}: torch has no CPU kernel for this operator and no PTX of its CUDA kernel, "
            "so the virtual CUDA device can't run it"
        )

    return refuse


def _is_memcpy(target: Tensor, source: Tensor) -> bool:
    """Whether no kernel is needed for a copy: torch calls cudaMemcpyAsync."""
    return (
        target.dtype == source.dtype
        and target.shape == source.shape
        and target.is_contiguous()
        and source.is_contiguous()
        and target.is_conj() == source.is_conj()
        and target.is_neg() == source.is_neg()
    )


def _run(operator: HostOperator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute now, or at each replay of the graph that is being captured; returns what the operator returns."""
    args, generator = operator.take_generator(operator.numbers_to_tensors(args), kwargs)
    outs = {name: kwargs.pop(name) for name in operator.out_names if name in kwargs}
    originals, structure = tree_flatten((args, kwargs))
    original_outs, out_structure = tree_flatten(outs)
    _check_devices(operator, args, kwargs, originals + original_outs)
    device = _result_device(originals + original_outs)
    if operator.is_random and generator is None:
        generator = torch.cuda.default_generators[device.index]
    lender = Lender()
    computation = Computation(
        operator,
        [_operand(original, lender) for original in originals],
        structure,
        [torch.empty(0, dtype=out.dtype, device=CPU) for out in original_outs],
        out_structure,
        generator,
    )

    def settle(result: Any) -> tuple[Any, Tensor | None]:
        """What to return for a result, and the CPU tensor to copy the result to, if it isn't there already."""
        if not isinstance(result, Tensor):
            return result, None
        owner = lender.owner(result)
        if owner is not None:
            return owner, None
        original = partner(zip(computation.outs, original_outs, strict=True), result)
        return _place(result, original, device, lender)

    stream = torch.cuda.current_stream(device if device.type == "cuda" else None)
    capturing = torch.cuda.is_current_stream_capturing()
    if not capturing:
        stream.synchronize()
    results = computation.results_without_computing() if capturing else computation.results()
    leaves, result_structure = tree_flatten(results)
    settled = [settle(leaf) for leaf in leaves]
    targets = [target for _, target in settled]
    if capturing:
        capture.record(lambda: computation.compute_into(targets), stream)
    else:
        copy_results(leaves, targets)
    return tree_unflatten([returned for returned, _ in settled], result_structure)


def _operand(original: Any, lender: Lender) -> Any:
    if isinstance(original, Tensor):
        return lender.lend(original)
    return CPU if isinstance(original, torch.device) else original


def _place(
    result: Tensor, original: Tensor | None, device: torch.device, lender: Lender
) -> tuple[Tensor, Tensor | None]:
    """Memory for a new result on the device, that of an ``out`` argument if it is one, and the same for the CPU."""
    if original is None:
        if device.type == "cpu":
            return result, None
        if result.layout != torch.strided:
            return result.to(device), None
        original = torch.ops.aten.empty_strided.default(
            result.shape, result.stride(), dtype=result.dtype, device=device
        )
    elif original.shape != result.shape:
        _maybe_resize_out(original, result.shape)
        if torch.ops.aten.is_non_overlapping_and_dense(result):
            original.as_strided_(result.shape, result.stride())
    return original, lender.lend(original)


def _check_devices(operator: HostOperator, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any]) -> None:
    """Refuse operands of several devices, as torch's kernels do; a CPU tensor without dimensions is a number."""
    if operator.name in _ACROSS_DEVICES:
        return
    if operator.name in _INDEXING and args[0].is_cuda:  # whose indices may be on the CPU
        leaves = tree_leaves((args[0], args[2:], kwargs))
    devices = [leaf.device for leaf in leaves if isinstance(leaf, Tensor) and (leaf.is_cuda or leaf.dim() > 0)]
    other = next((device for device in devices if device != devices[0]), None)
    if other is not None:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{devices[0]} and {other}! (when running {operator.op})"
        )


def _result_device(leaves: list[Any]) -> torch.device:
    """The device that is asked for, else the operands'."""
    device = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    if device is None:
        return next(leaf.device for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_cuda)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
