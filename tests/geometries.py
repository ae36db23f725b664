"""Convolutions and linear layers that all counted kernels are tested over: named ones at the edges, and random ones."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.cpu_kernels.oracle import ConvCase, LinearCase


def cube(
    batch: int,
    in_channels: int,
    image: tuple[int, int, int],
    out_channels: int,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, ...] = (0,) * 6,
    dilation: tuple[int, int, int] = (1, 1, 1),
    groups: int = 1,
    bias: bool = False,
) -> ConvCase:
    """A convolution of images with depth."""
    return ConvCase(batch, in_channels, image, out_channels, kernel, stride, padding, dilation, groups, bias)


CONV_CASES = {
    # Tile edges: 14, 6 and 4 rows; 32, 16 and 8 columns; 256 updates.
    **{f"{rows} rows": ConvCase(out_channels=rows) for rows in (3, 4, 5, 6, 7, 13, 14, 15, 27, 28, 29)},
    **{
        f"{columns} columns": ConvCase(batch=1, image=(1, columns), kernel=(1, 1), bias=True)
        for columns in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 128, 129)
    },
    **{
        f"{depth} updates": ConvCase(in_channels=depth, kernel=(1, 1), bias=depth % 2 == 0)
        for depth in (1, 2, 255, 256, 257, 511, 512, 513)
    },
    **{
        f"strips of {width} columns": ConvCase(1, 2, (1, width), 2, (1, 1), groups=2)
        for width in (31, 32, 33, 63, 64, 65, 127, 128, 129)
    },
    # Images.
    "pointwise on one pixel": ConvCase(batch=3, image=(1, 1), kernel=(1, 1)),
    "many channels, small image": ConvCase(2, 520, (2, 2), 300, padding=(1, 1, 1, 1), bias=True),
    "few outputs of many products": ConvCase(2, 4200, (3, 3), 21, (1, 1), bias=True),
    "few outputs of many taps": ConvCase(1, 3, (41, 42), 15, (40, 40), padding=(1, 1, 1, 1), bias=True),
    "many channels, 7 x 7": ConvCase(1, 512, (7, 7), 130, padding=(1, 1, 1, 1)),
    "more taps than are packed at a time": ConvCase(1, 70, (9, 32), 12, padding=(1, 1, 1, 1), bias=True),
    "images shorter than a tile": ConvCase(batch=7, image=(3, 3), padding=(1, 1, 1, 1)),
    "wide image": ConvCase(1, 16, (5, 301), 24, padding=(1, 1, 1, 1), bias=True),
    "tall image": ConvCase(1, 16, (301, 5), 24, padding=(1, 1, 1, 1)),
    **{  # of several vectors or one, whose tiles go on from row to row
        f"rows of {width} columns": ConvCase(2, 5, (7, width), 14, padding=(1, 1, 1, 1), bias=True)
        for width in (8, 24, 40, 48, 80)
    },
    "rows of 48 columns, stride 2": ConvCase(1, 5, (13, 96), 14, stride=(2, 2), padding=(1, 1, 1, 1)),
    "one column": ConvCase(image=(40, 1), kernel=(3, 1), padding=(1, 0, 1, 0)),
    "batch of none": ConvCase(batch=0),
    # Kernels.
    "7 x 7, stride 2": ConvCase(2, 3, (64, 70), 64, (7, 7), (2, 2), (3, 3, 3, 3)),
    "kernel as large as the image": ConvCase(image=(8, 9), kernel=(8, 9)),
    "kernel larger than the image": ConvCase(image=(2, 3), kernel=(5, 7), padding=(2, 3, 2, 3), bias=True),
    "taps dilated beyond the image": ConvCase(image=(5, 4), padding=(7, 9, 7, 9), dilation=(7, 9)),
    "wide dilation in a strided strip": ConvCase(
        2, 4, (9, 9), 4, (3, 3), (2, 3), (8, 8, 8, 8), (5, 7), groups=4, bias=True
    ),
    "stride beyond the kernel": ConvCase(image=(13, 17), kernel=(2, 2), stride=(4, 5)),
    "patches": ConvCase(2, 3, (32, 32), 40, (8, 8), (8, 8), bias=True),
    "pointwise, stride 2": ConvCase(2, 64, (14, 14), 32, (1, 1), (2, 2)),
    "strides that differ": ConvCase(image=(20, 20), stride=(1, 3), padding=(1, 1, 1, 1)),
    "large kernel": ConvCase(1, 2, (40, 40), 8, (17, 19), padding=(8, 9, 8, 9)),
    # Padding.
    "padding wider than the image": ConvCase(image=(2, 2), padding=(6, 5, 6, 5), bias=True),
    "outputs that see padding only": ConvCase(image=(1, 1), kernel=(1, 1), padding=(2, 2, 2, 2)),
    "padding above only": ConvCase(padding=(2, 0, 0, 0)),
    "padding to the right only": ConvCase(padding=(0, 0, 0, 2)),
    "padding that differs on all sides": ConvCase(1, 32, (30, 60), 70, (5, 4), padding=(0, 1, 3, 2), bias=True),
    # Groups.
    "depthwise": ConvCase(2, 16, (28, 28), 16, padding=(1, 1, 1, 1), groups=16, bias=True),
    "depthwise 5 x 5, stride 2": ConvCase(2, 6, (31, 33), 6, (5, 5), (2, 2), (2, 2, 2, 2), groups=6),
    **{
        f"depthwise {size} x {size} on {height} x {width}": ConvCase(
            2, 3, (height, width), 3, (size, size), stride, (size // 2,) * 4, groups=3, bias=size == 5
        )
        # 7 rows or one, and 16, 8, 4 or 2 columns make a tile.
        for size, height, width, stride in [
            (3, 7, 7, (1, 1)),
            (3, 8, 16, (1, 2)),
            (3, 25, 17, (2, 1)),
            (5, 13, 31, (2, 2)),
            (7, 6, 33, (1, 1)),
            (7, 7, 5, (1, 3)),
            (7, 30, 3, (2, 2)),
        ]
    },
    "depthwise, dilated": ConvCase(2, 4, (9, 11), 4, padding=(2, 2, 2, 2), dilation=(2, 2), groups=4, bias=True),
    "depthwise, dilated in a row": ConvCase(2, 4, (9, 21), 4, padding=(1, 3, 1, 3), dilation=(1, 3), groups=4),
    "depthwise with a multiplier of 3": ConvCase(2, 4, (9, 7), 12, padding=(1, 1, 1, 1), groups=4),
    "depthwise with a multiplier of 5": ConvCase(2, 4, (9, 7), 20, padding=(1, 1, 1, 1), groups=4),
    "depthwise in several bands": ConvCase(1, 1, (150, 600), 1, padding=(1, 1, 1, 1)),
    "few outputs, several at a time": ConvCase(2, 12, (20, 21), 6, (18, 19), padding=(1, 1, 1, 1), groups=3, bias=True),
    "few outputs of short lines": ConvCase(1, 8, (7, 7), 4, (7, 7), padding=(1, 1, 1, 1), groups=4),
    "few outputs, strides and dilations that differ": ConvCase(
        1, 6, (23, 45), 3, (10, 13), (1, 2), (2, 1, 3, 0), (2, 3), groups=3
    ),
    "groups of 4": ConvCase(2, 128, (7, 7), 128, padding=(1, 1, 1, 1), groups=32),
    "groups that shrink": ConvCase(2, 60, (7, 7), 6, padding=(1, 1, 1, 1), groups=3),
    "one output channel of many": ConvCase(1, 300, (10, 10), 1, padding=(1, 1, 1, 1), bias=True),
}

CONV3D_CASES = {
    "cube": cube(2, 5, (4, 6, 7), 9, (3, 3, 3), padding=(1, 1, 1, 1, 1, 1), bias=True),
    "pointwise in depth": cube(2, 20, (3, 5, 6), 15, (1, 1, 1)),
    "flat kernel": cube(2, 6, (5, 9, 8), 10, (1, 3, 3), padding=(0, 1, 1, 0, 1, 1)),
    "kernel of depth only": cube(2, 6, (9, 5, 6), 10, (3, 1, 1), padding=(1, 0, 0, 1, 0, 0), bias=True),
    "strides and dilations that differ": cube(
        1, 4, (9, 10, 11), 6, (2, 3, 2), (2, 1, 3), (1, 0, 2, 0, 1, 1), (3, 2, 1)
    ),
    "slices that see padding only": cube(1, 2, (1, 3, 3), 3, (1, 2, 2), padding=(2, 0, 0, 2, 0, 0)),
    "kernel deeper than the image": cube(1, 3, (2, 4, 4), 4, (5, 3, 3), padding=(2, 1, 1, 2, 1, 1)),
    "large image": cube(1, 8, (5, 30, 40), 20, (3, 3, 3), padding=(1, 1, 1, 1, 1, 1)),
    "many channels": cube(1, 70, (3, 4, 4), 33, (3, 3, 3), padding=(1, 1, 1, 1, 1, 1), bias=True),
    "depthwise": cube(2, 8, (5, 9, 9), 8, (3, 3, 3), padding=(1, 1, 1, 1, 1, 1), groups=8, bias=True),
    "depthwise, stride 2": cube(1, 4, (6, 9, 11), 4, (3, 3, 3), (2, 2, 2), (1, 1, 1, 1, 1, 1), groups=4),
    "depthwise, all in the padding": cube(1, 2, (1, 9, 8), 2, (1, 3, 3), (2, 1, 1), (1, 0, 0, 0, 0, 0), groups=2),
    "groups": cube(2, 12, (3, 6, 5), 15, (2, 3, 3), padding=(1, 0, 1, 0, 1, 0), groups=3),
    "7 x 7 x 7": cube(1, 2, (7, 8, 9), 5, (7, 7, 7), padding=(3, 3, 3, 3, 3, 3)),
}

LINEAR_CASES = [
    LinearCase(rows, in_features, out_features, bias)
    for rows, in_features, out_features, bias in [
        (0, 5, 3, True),
        (1, 1, 1, False),
        (1, 1, 1, True),
        (1, 2048, 1000, True),
        (4, 257, 33, False),
        (13, 255, 31, True),
        (14, 256, 32, False),
        (15, 600, 129, True),
        (100, 513, 70, True),
        (17, 4200, 33, True),
        (300, 40, 16, False),
    ]
]


WIDTHS = st.sampled_from([0, 1, 6, 13, 40])  # beyond the smallest


@st.composite
def conv_cases(draw: st.DrawFn, axes: int = 2) -> ConvCase:
    """Any geometry with an output; a side of the image may be smaller than the kernel where padding allows it."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 8]))
    deep = axes == 3  # and smaller in the other axes
    kernel = tuple(draw(st.integers(1, most)) for most in ((3, 3, 4) if deep else (5, 7)))
    dilation = tuple(draw(st.sampled_from([1, 1, 2, 5])) for _ in range(axes))
    padding = tuple(draw(st.sampled_from([0, 1, 2, 3 if deep else 6])) for _ in range(2 * axes))
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in range(axes)]
    smallest = [max(1, spans[i] - padding[i] - padding[i + axes]) for i in range(axes)]
    larger = [st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)] if deep else [st.integers(0, 12), WIDTHS]
    return ConvCase(
        batch=draw(st.integers(1, 3)),
        in_channels=groups * draw(st.sampled_from([1, 2, 3, 17, 40])),
        image=tuple(smallest[i] + draw(larger[i]) for i in range(axes)),
        out_channels=groups * draw(st.sampled_from([1, 1, 2, 3, 5, 14, 15, 29, 70])),
        kernel=kernel,
        stride=tuple(draw(st.integers(1, 3)) for _ in range(axes)),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )


linear_cases = st.builds(LinearCase, st.integers(1, 40), st.integers(1, 600), st.integers(1, 140), st.booleans())
