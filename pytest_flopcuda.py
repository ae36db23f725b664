"""The pytest option ``--virtual-cuda``: run the tests with a virtual CUDA device, and fail those whose kernels err.

A module of its own beside the package: pytest imports it in every session, where importing flopcuda, and with it torch,
would be a burden.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("flopcuda").addoption(
        "--virtual-cuda",
        action="store_true",
        help="run with a virtual CUDA device: kernels are executed from PTX, checked, and a finding fails the test",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Start anew before any output is captured and any test's module imported."""
    if early_config.known_args_namespace.virtual_cuda:
        from flopcuda.virtual_cuda import launch

        try:
            launch.ensure()
        except launch.UnavailableError as error:
            raise pytest.UsageError(f"--virtual-cuda: {error}") from None
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--virtual-cuda"):
        config.pluginmanager.register(FindingsFailTests(), "flopcuda-findings")


class FindingsFailTests:
    """Fails each phase of a test, setup and teardown included, that launched a kernel with a defect."""

    def pytest_report_header(self) -> str:
        import torch

        return f"virtual CUDA: {torch.cuda.device_count()} x {torch.cuda.get_device_name()}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._checked(item, "setup"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._checked(item, "call"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._checked(item, "teardown"))

    def _checked(self, item: pytest.Item, phase: str) -> Generator[None, object, object]:
        from flopcuda.virtual_cuda import records

        try:
            result = yield
        finally:
            findings = records.findings()
            records.clear()
            if findings:
                item.add_report_section(phase, "virtual CUDA findings", "\n".join(map(str, findings)))
        if findings:
            pytest.fail(f"{len(findings)} defects of kernels were found; the first: {findings[0]}", pytrace=False)
        return result
