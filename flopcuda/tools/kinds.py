"""The kinds of work that terms of a ledger are named after, and which kind a module is.

Only what is listed here explains a difference. Work of any other kind stays unexplained, because the counted side ought
to have seen it.
"""

from __future__ import annotations

from torch import nn

# Figures of this kind are compared with the counted layers, and never are a term of their own.
MULTIPLY_ACCUMULATE = "multiply-accumulate"

BATCH_NORM = "batch norm"
LAYER_NORM = "layer norm"
GROUP_NORM = "group norm"
INSTANCE_NORM = "instance norm"
AVERAGE_POOL = "average pool"
MAX_POOL = "max pool"
ACTIVATION = "activation"
SOFTMAX = "softmax"
UPSAMPLE = "upsample"
GRID_SAMPLE = "grid sample"
ELEMENTWISE = "elementwise add and mul"
QUERY_SCALING = "scaling of queries"
BIAS = "bias"

# The kernels compute a transposed convolution as convolutions of the phases of its stride. These execute some padding,
# and neither what would be cropped nor a product with a zero that the stride inserts.
PADDING = "padding that transposed convolutions execute"
CROPPED = "taps of transposed convolutions that are cropped"
INSERTED_ZEROS = "zeros that transposed convolutions insert"

# Tools take a product for dense that causal attention computes a triangle of.
SKIPPED = "products beyond the diagonal that a causal mask skips"

# Of recurrent layers: their gates, the biases of which are in BIAS.
RECURRENT_ELEMENTWISE = "elementwise work of recurrent layers"
NO_STEPS = "steps that unbatched or packed sequences do not have"
PROJECTIONS = "projections of hidden states"

# Some tools take the channels of an image without a batch for a batch.
UNBATCHED = "unbatched images taken for a batch"

# fvcore reads the operations of most einsum equations from numpy's print of them.
EINSUM_DIGITS = "einsum rounded to four digits"

# A tool that visits a module once for each place it has in the model adds all its calls up each time.
SHARED_AGAIN = "shared modules counted again"

# A tool that takes a module's figure for all that is in it drops the figures it has for the modules inside.
LEFT_OUT = "modules inside others left out"

# Modules whose work is multiply-accumulates, in the main.
CONTRACTIONS = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)

_KINDS: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
    (MULTIPLY_ACCUMULATE, CONTRACTIONS),
    (BATCH_NORM, (nn.modules.batchnorm._BatchNorm,)),
    (INSTANCE_NORM, (nn.modules.instancenorm._InstanceNorm,)),
    (LAYER_NORM, (nn.LayerNorm,)),
    (GROUP_NORM, (nn.GroupNorm,)),
    (
        AVERAGE_POOL,
        (
            nn.AvgPool1d,
            nn.AvgPool2d,
            nn.AvgPool3d,
            nn.AdaptiveAvgPool1d,
            nn.AdaptiveAvgPool2d,
            nn.AdaptiveAvgPool3d,
        ),
    ),
    (
        MAX_POOL,
        (
            nn.MaxPool1d,
            nn.MaxPool2d,
            nn.MaxPool3d,
            nn.AdaptiveMaxPool1d,
            nn.AdaptiveMaxPool2d,
            nn.AdaptiveMaxPool3d,
        ),
    ),
    (
        ACTIVATION,
        (
            nn.ReLU,
            nn.ReLU6,
            nn.LeakyReLU,
            nn.PReLU,
            nn.ELU,
            nn.GELU,
            nn.SiLU,
            nn.Hardswish,
            nn.Hardsigmoid,
            nn.Sigmoid,
            nn.Tanh,
        ),
    ),
    (SOFTMAX, (nn.Softmax, nn.LogSoftmax)),
    (UPSAMPLE, (nn.Upsample,)),
)


def kind_of_module(module: nn.Module) -> str | None:
    """The kind of a module's work; None when no term stands for it."""
    return next((kind for kind, types in _KINDS if isinstance(module, types)), None)
