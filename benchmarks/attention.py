"""Causal attention beside dense attention: what the kernels count, slices of their main loops, and predicted times.

``python -m benchmarks.attention`` runs both on the PTX machine, predicts them for each GPU, and writes
``benchmarks/attention.json`` and the table of docs/prediction.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import flopcuda
from benchmarks.markers import between_markers
from flopcuda.prediction import GPU, GPUS, predict
from flopcuda.prediction.layers import tiling_of
from flopcuda.prediction.model import load_of

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "attention.json"
DOCUMENT = FOLDER.parent / "docs" / "prediction.md"
HEADS, WIDTH = 8, 64
LENGTHS = (512, 1024, 2048)
DTYPES = (torch.float32, torch.float16)


@dataclass(eq=False)
class Attention(nn.Module):
    """Of queries, keys and values ``[batch, heads, tokens, width]``."""

    is_causal: bool

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)


def factors(length: int, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (torch.randn(1, HEADS, length, WIDTH, dtype=dtype, device=device) for _ in range(3))
    return query, key, value


def count(length: int, dtype: torch.dtype, is_causal: bool) -> dict[str, int]:
    """What the kernels that an A100 would be given count on the PTX machine: products, and lanes that multiply."""
    with flopcuda.instrument(Attention(is_causal), backend="ptxvm") as session, torch.no_grad():
        session.model(*factors(length, dtype))
    total = session.report().total
    return {"mul": total.mul, "lane": total.lane}


def foresee(length: int, dtype: torch.dtype, is_causal: bool, gpu: GPU) -> dict[str, object]:
    """Kernels and seconds of both launches, slices of all blocks' main loops, and as many of a dense product."""
    layers = predict(Attention(is_causal), factors(length, dtype, "meta"), gpu).layers
    tiled = [(layer.work, tiling_of(layer.kernel, gpu), layer.splits) for layer in layers]
    return {
        "kernels": [layer.kernel for layer in layers],
        "slices": sum(load_of(*launch).slices for launch in tiled),
        "dense_slices": sum(load_of(replace(work, triangle=None), *launch).slices for work, *launch in tiled),
        "seconds": sum(layer.time.seconds for layer in layers),
    }


def measure() -> dict[str, object]:
    """Of each length and dtype, causal and dense. Of float16, torch would multiply in float32 if it were not told."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    kinds = {"causal": True, "dense": False}
    rows = [
        {
            "tokens": length,
            "dtype": str(dtype).removeprefix("torch."),
            "counted": {kind: count(length, dtype, is_causal) for kind, is_causal in kinds.items()},
            "predicted": {
                name: {kind: foresee(length, dtype, is_causal, gpu) for kind, is_causal in kinds.items()}
                for name, gpu in GPUS.items()
            },
        }
        for dtype in DTYPES
        for length in LENGTHS
    ]
    return {"heads": HEADS, "width": WIDTH, "attention": rows}


def table(measured: dict[str, object]) -> str:
    """A row for each length: causal attention as a share of dense attention."""
    gpus = [GPUS[name].name for name in GPUS]
    lines = [
        f"| numbers | tokens | products | lanes | slices, A100 | {' | '.join(gpus)} |",
        "|---" * (5 + len(gpus)) + "|",
    ]
    for row in measured["attention"]:
        counted, predicted = row["counted"], row["predicted"]
        shares = [counted["causal"][name] / counted["dense"][name] for name in ("mul", "lane")]
        shares.append(predicted["a100"]["causal"]["slices"] / predicted["a100"]["causal"]["dense_slices"])
        times = [[predicted[name][kind]["seconds"] for kind in ("causal", "dense")] for name in GPUS]
        cells = [row["dtype"], str(row["tokens"]), *(f"{share:.3f}" for share in shares)]
        cells += [f"{1e6 * causal:.1f} of {1e6 * dense:.1f} us" for causal, dense in times]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The document with its table made anew from the benchmark's JSON.

    Raises:
        ValueError: the table's markers are not there once.
    """
    return between_markers(text, "attention", table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
    print(table(json.loads(RESULTS.read_text())))
