"""Convolutions and linear layers that all counted kernels are tested over: named ones at the edges, and random ones."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.cpu_kernels.oracle import Conv2dCase, LinearCase

CONV2D_CASES = {
    # Tile edges: 14, 6 and 4 rows; 32, 16 and 8 columns; 256 updates.
    **{f"{rows} rows": Conv2dCase(out_channels=rows) for rows in (3, 4, 5, 6, 7, 13, 14, 15, 27, 28, 29)},
    **{
        f"{columns} columns": Conv2dCase(batch=1, image=(1, columns), kernel=(1, 1), bias=True)
        for columns in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 128, 129)
    },
    **{
        f"{depth} updates": Conv2dCase(in_channels=depth, kernel=(1, 1), bias=depth % 2 == 0)
        for depth in (1, 2, 255, 256, 257, 511, 512, 513)
    },
    **{
        f"strips of {width} columns": Conv2dCase(1, 2, (1, width), 2, (1, 1), groups=2)
        for width in (31, 32, 33, 63, 64, 65, 127, 128, 129)
    },
    # Images.
    "pointwise on one pixel": Conv2dCase(batch=3, image=(1, 1), kernel=(1, 1)),
    "many channels, small image": Conv2dCase(2, 520, (2, 2), 300, padding=(1, 1, 1, 1), bias=True),
    "many channels, 7 x 7": Conv2dCase(1, 512, (7, 7), 130, padding=(1, 1, 1, 1)),
    "images shorter than a tile": Conv2dCase(batch=7, image=(3, 3), padding=(1, 1, 1, 1)),
    "wide image": Conv2dCase(1, 16, (5, 301), 24, padding=(1, 1, 1, 1), bias=True),
    "tall image": Conv2dCase(1, 16, (301, 5), 24, padding=(1, 1, 1, 1)),
    "one column": Conv2dCase(image=(40, 1), kernel=(3, 1), padding=(1, 0, 1, 0)),
    "batch of none": Conv2dCase(batch=0),
    # Kernels.
    "7 x 7, stride 2": Conv2dCase(2, 3, (64, 70), 64, (7, 7), (2, 2), (3, 3, 3, 3)),
    "kernel as large as the image": Conv2dCase(image=(8, 9), kernel=(8, 9)),
    "kernel larger than the image": Conv2dCase(image=(2, 3), kernel=(5, 7), padding=(2, 3, 2, 3), bias=True),
    "taps dilated beyond the image": Conv2dCase(image=(5, 4), padding=(7, 9, 7, 9), dilation=(7, 9)),
    "wide dilation in a strided strip": Conv2dCase(
        2, 4, (9, 9), 4, (3, 3), (2, 3), (8, 8, 8, 8), (5, 7), groups=4, bias=True
    ),
    "stride beyond the kernel": Conv2dCase(image=(13, 17), kernel=(2, 2), stride=(4, 5)),
    "patches": Conv2dCase(2, 3, (32, 32), 40, (8, 8), (8, 8), bias=True),
    "pointwise, stride 2": Conv2dCase(2, 64, (14, 14), 32, (1, 1), (2, 2)),
    "strides that differ": Conv2dCase(image=(20, 20), stride=(1, 3), padding=(1, 1, 1, 1)),
    "large kernel": Conv2dCase(1, 2, (40, 40), 8, (17, 19), padding=(8, 9, 8, 9)),
    # Padding.
    "padding wider than the image": Conv2dCase(image=(2, 2), padding=(6, 5, 6, 5), bias=True),
    "outputs that see padding only": Conv2dCase(image=(1, 1), kernel=(1, 1), padding=(2, 2, 2, 2)),
    "padding above only": Conv2dCase(padding=(2, 0, 0, 0)),
    "padding to the right only": Conv2dCase(padding=(0, 0, 0, 2)),
    "padding that differs on all sides": Conv2dCase(1, 32, (30, 60), 70, (5, 4), padding=(0, 1, 3, 2), bias=True),
    # Groups.
    "depthwise": Conv2dCase(2, 16, (28, 28), 16, padding=(1, 1, 1, 1), groups=16, bias=True),
    "depthwise 5 x 5, stride 2": Conv2dCase(2, 6, (31, 33), 6, (5, 5), (2, 2), (2, 2, 2, 2), groups=6),
    "depthwise with a multiplier of 3": Conv2dCase(2, 4, (9, 7), 12, padding=(1, 1, 1, 1), groups=4),
    "depthwise with a multiplier of 5": Conv2dCase(2, 4, (9, 7), 20, padding=(1, 1, 1, 1), groups=4),
    "depthwise in several bands": Conv2dCase(1, 1, (150, 600), 1, padding=(1, 1, 1, 1)),
    "groups of 4": Conv2dCase(2, 128, (7, 7), 128, padding=(1, 1, 1, 1), groups=32),
    "groups that shrink": Conv2dCase(2, 60, (7, 7), 6, padding=(1, 1, 1, 1), groups=3),
    "one output channel of many": Conv2dCase(1, 300, (10, 10), 1, padding=(1, 1, 1, 1), bias=True),
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
        (300, 40, 16, False),
    ]
]


@st.composite
def conv2d_cases(draw: st.DrawFn) -> Conv2dCase:
    """Any geometry with an output; a side of the image may be smaller than the kernel where padding allows it."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 8]))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 7)))
    dilation = (draw(st.sampled_from([1, 1, 2, 5])), draw(st.sampled_from([1, 1, 2, 5])))
    top, left, bottom, right = (draw(st.sampled_from([0, 1, 2, 6])) for _ in range(4))
    padding = (top, left, bottom, right)
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
    smallest = [max(1, spans[i] - padding[i] - padding[i + 2]) for i in range(2)]
    return Conv2dCase(
        batch=draw(st.integers(1, 3)),
        in_channels=groups * draw(st.sampled_from([1, 2, 3, 17, 40])),
        image=(smallest[0] + draw(st.integers(0, 12)), smallest[1] + draw(st.sampled_from([0, 1, 6, 13, 40]))),
        out_channels=groups * draw(st.sampled_from([1, 1, 2, 3, 5, 14, 15, 29, 70])),
        kernel=kernel,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )


linear_cases = st.builds(LinearCase, st.integers(1, 40), st.integers(1, 600), st.integers(1, 140), st.booleans())
