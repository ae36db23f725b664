"""The README's example prints what the README says, and its figures are those that the tests prove."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import attention, prediction, taps
from benchmarks.readme import with_tables
from flopcuda.cli import main
from flopcuda.prediction import GPUS
from flopcuda.registry import LOWERINGS
from tests.cuda_kernels import needs_kernels

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_prints_its_output() -> None:
    code, output = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == output


@pytest.mark.parametrize("command", re.findall(r"^flopcuda (predict .*)$", README, re.MULTILINE))
def test_predictions_run(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0, result.output
    assert "bound by" in result.output


def test_the_table_of_published_times_is_the_models() -> None:
    text = prediction.DOCUMENT.read_text()
    assert prediction.with_table(text) == text


def test_the_table_of_causal_attention_is_the_benchmarks() -> None:
    """And what it has of the model is what the model says."""
    text = attention.DOCUMENT.read_text()
    assert attention.with_table(text) == text
    for row in json.loads(attention.RESULTS.read_text())["attention"][:3]:
        for name, kinds in row["predicted"].items():
            for kind, foreseen in kinds.items():
                again = attention.foresee(row["tokens"], getattr(torch, row["dtype"]), kind == "causal", GPUS[name])
                assert again == {**foreseen, "seconds": pytest.approx(foreseen["seconds"])}


@needs_kernels
def test_shares_with_steps_between_taps_are_what_is_executed() -> None:
    row = json.loads(taps.RESULTS.read_text())["kernels"][0]
    assert taps.measure(row["tile"]) == row


def test_make_has_the_commands() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


def test_tables_are_those_of_their_sources() -> None:
    """Of the measurements that are kept, and of the operators that are registered."""
    assert with_tables(README) == README


def test_the_coverage_table_has_every_counted_operator() -> None:
    (table,) = re.findall(r"<!-- coverage -->\n(.*?)\n<!-- end coverage -->", README, re.DOTALL)
    assert {packet.__name__ for packet in LOWERINGS} <= set(re.findall(r"`(\w+)`", table))
