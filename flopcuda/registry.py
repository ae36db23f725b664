"""Which of torch's operators are counted and as what, which are named because they are not, and which are free.

``benchmarks/readme.py`` makes the README's table of what is counted from this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from flopcuda import contractions, lowering
from flopcuda.lowering import Lowering

aten = torch.ops.aten


@dataclass(frozen=True)
class Family:
    """Operators that are counted alike.

    Attributes:
        layers: what a user writes that ends in them, in Markdown.
        kernels: the counted kernels that compute them, in words.
        lowerings: each operator of torch, those of the gradients included, and what it is for the kernels. One whose
            name ends in "_" writes what its lowering gives to its first argument.
    """

    layers: str
    kernels: str
    lowerings: Mapping[Any, Lowering]


COUNTED: tuple[Family, ...] = (
    Family(
        layers="`Conv1d`, `Conv2d`, `Conv3d`, their transposed kinds and `F.conv*`, lazy ones too: stride, padding "
        "(all modes, 'same', 'valid'), `output_padding`, dilation, groups, depthwise, bias",
        kernels="convolution; a transposed one is a convolution for each phase of its stride",
        lowerings={
            aten.convolution: lowering.convolution,
            aten._convolution: lowering.convolution,
            aten.conv_tbc: contractions.conv_tbc,
            aten.convolution_backward: lowering.convolution_backward,
        },
    ),
    Family(
        layers="`Linear`, `F.linear`, `mm`, `addmm`, `mv`, `dot`, `@` and `matmul` of vectors and matrices; `RNN`, "
        "`LSTM`, `GRU` and their cells in all forms, without the fused code of oneDNN and cuDNN",
        kernels="linear, or on the CPU one group of a pointwise convolution",
        lowerings={
            aten.linear: lowering.linear,
            aten.mm: lowering.mm,
            aten.addmm: lowering.addmm,
            aten._addmm_activation: contractions.addmm_activation,
            aten.addbmm: lowering.addbmm,
            aten.mv: lowering.mv,
            aten.addmv: lowering.addmv,
            aten.dot: lowering.dot,
            aten.vdot: lowering.dot,  # of real numbers
            aten.addr: contractions.addr,
            aten.addmm_: lowering.addmm,
            aten.addbmm_: lowering.addbmm,
            aten.addmv_: lowering.addmv,
            aten.addr_: contractions.addr,
        },
    ),
    Family(
        layers="`bmm`, `baddbmm`, `@` and `matmul` of more dimensions, `einsum`, `tensordot`; `MultiheadAttention`, "
        "`Transformer` and `scaled_dot_product_attention` in all forms, as their products",
        kernels="linear; on the CPU, a pointwise convolution with a group for each product; if causal, of triangles",
        lowerings={aten.bmm: lowering.bmm, aten.baddbmm: lowering.baddbmm, aten.baddbmm_: lowering.baddbmm},
    ),
    Family(
        layers="`Bilinear`, and `cdist` where torch computes it by a product",
        kernels="linear; on the CPU, a pointwise convolution with a group for each product",
        lowerings={aten._trilinear: contractions.trilinear, aten._euclidean_dist: contractions.euclidean_dist},
    ),
)

LOWERINGS: Mapping[Any, Lowering] = MappingProxyType(
    {packet: lowering for family in COUNTED for packet, lowering in family.lowerings.items()}
)

# Those that causal attention is made of: their lowerings take a ``triangle``.
PRODUCTS = frozenset({aten.mm, aten.bmm})

# What multiplies and accumulates, or may, and has no lowering: names of operators by the kind of their work. Which of
# them exist depends on torch's version.
NAMED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "factorisations and solvers of linear systems": (
            "_cholesky_solve_helper", "_linalg_det", "_linalg_eigh", "_linalg_eigvals", "_linalg_slogdet",
            "_linalg_solve_ex", "_linalg_svd", "_spsolve", "cholesky_inverse", "cholesky_solve", "geqrf",
            "linalg_cholesky_ex", "linalg_eig", "linalg_eigvals", "linalg_householder_product", "linalg_inv_ex",
            "linalg_ldl_factor_ex", "linalg_ldl_solve", "linalg_lstsq", "linalg_lu", "linalg_lu_factor_ex",
            "linalg_lu_solve", "linalg_matrix_exp", "linalg_matrix_sqrth", "linalg_pinv", "linalg_polar", "linalg_qr",
            "linalg_solve_triangular", "ormqr", "triangular_solve",
        ),
        "Fourier transforms": ("_fft_c2c", "_fft_c2r", "_fft_r2c"),
        "sparse and quantised products, and those of several formats": (
            "_cslt_sparse_mm", "_dyn_quant_matmul_4bit", "_foreach_mm", "_grouped_mm", "_int_mm",
            "_mixed_dtypes_linear", "_scaled_grouped_mm", "_scaled_grouped_mm_v2", "_scaled_mm", "_scaled_mm_v2",
            "_sparse_addmm", "_sparse_mm_reduce_impl", "_sparse_mm_reduce_impl_backward",
            "_sparse_semi_structured_addmm", "_sparse_semi_structured_linear", "_sparse_semi_structured_mm",
            "_sparse_sparse_matmul", "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu",
            "_weight_int4pack_mm_with_scales_and_zeros", "_weight_int8pack_mm", "hspmm", "quantized_gru",
            "quantized_lstm", "sparse_sampled_addmm", "sspaddmm",
        ),
        "distances without a product, weighted embedding bags": (
            "_cdist_backward", "_cdist_forward", "_embedding_bag", "_embedding_bag_forward_only",
            "_embedding_bag_per_sample_weights_backward", "_pdist_backward", "_pdist_forward",
        ),
        "fused code of a device, called by its own name": (
            "_conv_depthwise2d", "_cudnn_attention_backward", "_cudnn_attention_forward", "_cudnn_rnn",
            "_cudnn_rnn_backward", "_flash_attention_forward_no_dropout_inplace", "_native_multi_head_attention",
            "_nnpack_spatial_convolution", "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention_for_cpu_backward",
            "_scaled_dot_product_fused_attention_overrideable",
            "_scaled_dot_product_fused_attention_overrideable_backward", "_slow_conv2d_backward",
            "_transformer_encoder_layer_fwd", "_triton_multi_head_attention", "_triton_scaled_dot_attention",
            "conv_depthwise3d", "convolution_backward_overrideable", "cudnn_convolution_add_relu",
            "cudnn_convolution_relu", "cudnn_convolution_transpose", "linear_backward", "matmul_backward",
            "miopen_convolution", "miopen_convolution_add_relu", "miopen_convolution_relu",
            "miopen_convolution_transpose", "miopen_depthwise_convolution", "miopen_rnn", "miopen_rnn_backward",
            "mkldnn_convolution", "mkldnn_linear", "mkldnn_linear_backward", "mkldnn_linear_backward_input",
            "mkldnn_linear_backward_weights", "mkldnn_rnn_layer", "mkldnn_rnn_layer_backward", "slow_conv3d_forward",
            "slow_conv_dilated2d", "slow_conv_dilated3d", "slow_conv_transpose2d", "slow_conv_transpose3d",
        ),
    }
)  # fmt: skip

# With torch's own list of what has a formula.
NOT_COUNTED = (
    frozenset(packet for packet in flop_registry if str(packet).startswith("aten."))
    | {getattr(aten, name) for names in NAMED.values() for name in names if hasattr(aten, name)}
) - frozenset(LOWERINGS)

# Namespaces whose operators move, compare, add, normalise, pool and interpolate; those of any other may do anything.
FREE_NAMESPACES = frozenset({"aten", "prim", "prims", "profiler", "flopcuda", "inductor"})
FREE_OPERATORS = frozenset({"torchvision::nms", "torchvision::roi_pool", "torchvision::_roi_pool_backward"})

# Operators without products that run most often in a training step, an optimizer or attention. They pass a capture by
# without a call of Python, which takes longer than many of them take.
USUAL_WITHOUT_PRODUCTS = (
    "_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward", "_log_softmax", "_log_softmax_backward_data", "_softmax",
    "_softmax_backward_data", "_to_copy", "_unsafe_view", "add", "add_", "addcdiv_", "addcmul_", "alias", "as_strided",
    "avg_pool2d", "avg_pool2d_backward", "cat", "clone", "constant_pad_nd", "copy_", "detach", "div", "div_",
    "elu", "elu_backward", "embedding", "embedding_dense_backward", "empty_like", "exp", "expand", "fill_", "gelu",
    "gelu_backward", "hardsigmoid", "hardsigmoid_backward", "hardswish", "hardswish_", "hardswish_backward", "hardtanh",
    "hardtanh_", "hardtanh_backward", "leaky_relu", "leaky_relu_", "leaky_relu_backward", "lerp_", "masked_fill",
    "max_pool2d_with_indices", "max_pool2d_with_indices_backward", "mean", "mul", "mul_", "native_batch_norm",
    "native_batch_norm_backward", "native_dropout", "native_dropout_backward", "native_group_norm",
    "native_group_norm_backward", "native_layer_norm", "native_layer_norm_backward", "neg", "new_zeros",
    "nll_loss_backward", "nll_loss_forward", "ones_like", "permute", "pow", "relu", "relu_", "roll", "rsqrt", "rsub",
    "select", "sigmoid", "sigmoid_backward", "silu", "silu_", "silu_backward", "slice", "slice_backward", "split",
    "split_with_sizes", "sqrt", "squeeze", "stack", "sub", "sub_", "sum", "t", "tanh", "tanh_backward",
    "threshold_backward", "transpose", "unbind", "unsqueeze", "view", "zero_", "zeros_like",
)  # fmt: skip

# torch's own modules of which no operator multiplies and accumulates, nor calls another module, and their forward.
# Where that is what runs, no operator need be looked at, which takes time.
WITHOUT_PRODUCTS: Mapping[type[nn.Module], Any] = MappingProxyType(
    {
        kind: kind.forward
        for kind in (
            *(nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
            *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
            *(nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
            *(nn.Hardshrink, nn.Softshrink, nn.Tanhshrink),
            *(nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.GLU),
            *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
            *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
            *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
            *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        )
    }
)
