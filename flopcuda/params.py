"""Params: the number of parameters of a model, as opposed to FLOPs, the work of its forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import UninitializedParameter


@dataclass(frozen=True)
class Params:
    """A model's parameters, each shared (tied) parameter once.

    Attributes:
        total: elements of all parameters.
        trainable: elements of those that require a gradient.
        non_trainable: elements of the others. Buffers, such as a batch norm's running mean, are no parameters.
        bytes: memory that the elements take.
    """

    total: int
    trainable: int
    non_trainable: int
    bytes: int


def count_params(model: nn.Module) -> Params:
    """Count a model's parameters; one that several modules share (the same ``nn.Parameter``) counts once.

    Args:
        model: any module. torchvision's ``resnet50()`` has 25,557,032 parameters, all of them trainable.

    Returns:
        Numbers of elements, and bytes.

    Raises:
        ValueError: a lazy module has not seen an input yet, so that the size of its parameters is unknown.
    """
    total = trainable = memory = 0
    for parameter in _initialised_parameters(model):
        elements = parameter.numel()
        total += elements
        trainable += elements if parameter.requires_grad else 0
        memory += elements * parameter.element_size()
    return Params(total=total, trainable=trainable, non_trainable=total - trainable, bytes=memory)


def _initialised_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            owner, _, attribute = name.rpartition(".")
            module = model.get_submodule(owner)
            raise ValueError(
                f"parameter {attribute!r} of module {owner or '(the model)'!r} ({type(module).__name__}) is not "
                "initialised: run one forward pass before counting parameters"
            )
        yield parameter
