"""Seeded defects: changes of a source text, for builds that tests must find fault with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

FAST_SHARE = 8  # one of so many mutants is built by default


@dataclass(frozen=True)
class Patch:
    """A change of one source file: ``original``, which must stand in it exactly once, becomes ``replacement``."""

    file: str
    original: str
    replacement: str


def sampled(mutants: Mapping[str, Patch]) -> list[Any]:
    """The parameters of a test that builds each mutant, by name; a build takes seconds, so that most are slow tests."""
    return [
        pytest.param(patch, id=name, marks=[pytest.mark.slow] if number % FAST_SHARE else [])
        for number, (name, patch) in enumerate(mutants.items())
    ]


def apply_patches(sources: Mapping[str, str], patches: Sequence[Patch]) -> dict[str, str]:
    """The sources, texts by file name, with the patches applied.

    Raises:
        ValueError: a patch does not fit.
    """
    patched = dict(sources)
    for patch in patches:
        found = patched[patch.file].count(patch.original)
        if found != 1:
            raise ValueError(f"{patch.file} holds the text to replace {found} times, not once: {patch.original!r}")
        patched[patch.file] = patched[patch.file].replace(patch.original, patch.replacement)
    return patched
