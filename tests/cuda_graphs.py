"""Capture of a CUDA graph in a process that many tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def captured() -> Iterator[torch.cuda.CUDAGraph]:
    """A graph of what runs inside; torch's asynchronous allocator would make it free what Python collects meanwhile."""
    gc.collect()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        yield graph
