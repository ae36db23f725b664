"""A virtual device's memory is the host's: CUDA tensors lent to CPU kernels where they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

CPU = torch.device("cpu")


def partner(pairs: Iterable[tuple[Tensor, Tensor]], tensor: Tensor) -> Tensor | None:
    """The second of the pair whose first is this very tensor; None without one."""
    return next((second for first, second in pairs if first is tensor), None)


class Lender:
    """Makes CPU tensors over the memory of CUDA tensors, which must outlive them, and remembers whose they are."""

    def __init__(self) -> None:
        self._lent: list[tuple[Tensor, Tensor]] = []
        self._storages: dict[int, Any] = {}

    def lend(self, tensor: Tensor) -> Tensor:
        """The CPU tensor with the same bytes, sizes, strides, conjugate bit and negative bit; a CPU tensor itself."""
        lent = self._over_the_same_memory(tensor) if tensor.is_cuda else tensor
        self._lent.append((lent, tensor))
        return lent

    def owner(self, tensor: Tensor) -> Tensor | None:
        """The tensor that was lent as this CPU tensor; None if it is new."""
        return partner(self._lent, tensor)

    def _over_the_same_memory(self, tensor: Tensor) -> Tensor:
        lent: Tensor = torch.ops.aten.set_.source_Storage_storage_offset(
            torch.empty(0, dtype=tensor.dtype, device=CPU),
            self._storage(tensor.untyped_storage()),
            tensor.storage_offset(),
            tensor.shape,
            tensor.stride(),
        )
        if tensor.is_conj():
            lent = torch.conj(lent)
        return torch._neg_view(lent) if tensor.is_neg() else lent

    def _storage(self, storage: torch.UntypedStorage) -> Any:
        """One for all tensors that share it: torch tells by the storage whether two tensors overlap."""
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = torch._C._construct_storage_from_data_pointer(
                storage.data_ptr(), CPU, storage.nbytes()
            )
        return self._storages[key]
