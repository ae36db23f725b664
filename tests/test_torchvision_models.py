"""Every classification, segmentation and video model of torchvision: what is counted is what torch's formulas say.

FlopCounterMode sees a model on the meta device, so that the two sides share neither numbers nor kernels. Neither takes
attention's short cuts. There is no exception: none of these models has a transposed convolution, and nothing else is
counted by torch's formulas in another way.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import flopcuda
from tests.torch_counts import torchs_own_count

models = pytest.importorskip("torchvision.models")

CLASSIFICATION = [name for name in models.list_models(models) if not name.startswith("quantized_")]
SEGMENTATION = models.list_models(models.segmentation)
VIDEO = models.list_models(models.video)

# Sizes as small as a model takes them, and the arguments that let it take them.
INPUTS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "inception_v3": ((1, 3, 75, 75), {}),
    "maxvit_t": ((1, 3, 224, 224), {}),
    "vit_h_14": ((1, 3, 56, 56), {"image_size": 56}),
    **{name: ((1, 3, 64, 64), {"image_size": 64}) for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32")},
    **{name: ((1, 3, 16, 112, 112), {}) for name in VIDEO},
    **{name: ((1, 3, 16, 224, 224), {}) for name in VIDEO if name.startswith(("mvit", "s3d"))},
}


def on_meta(name: str, options: dict[str, Any]) -> nn.Module:
    """A model without values. A RegNet computes its sizes with tensors, so that it needs some at first."""
    backbone = {"weights_backbone": None} if name in SEGMENTATION else {}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return models.get_model(name, weights=None, **backbone, **options).eval().to("meta")


def filled(model: nn.Module) -> nn.Module:
    """The same with values, all of them 0: counts don't depend on them."""
    model = model.to_empty(device="cpu")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.detach().zero_()
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
@pytest.mark.parametrize("name", [*CLASSIFICATION, *SEGMENTATION, *VIDEO])
def test_counts_are_those_of_torchs_formulas(name: str) -> None:
    shape, options = INPUTS.get(name, ((1, 3, 64, 64), {}))
    model = on_meta(name, options)
    with torch.no_grad(), torchs_own_count() as theirs:
        model(torch.empty(shape, device="meta"))
    model = filled(model)
    with torch.no_grad(), flopcuda.instrument(model) as session:
        model(torch.zeros(shape))
    report = session.report()
    assert report.not_counted == ()
    assert report.total.macs == theirs.get_total_flops() // 2 > 0
