"""Kernels and tests run alike, whether `make test` or a plain `pytest --nbval` starts them."""

import os

import ledger
import pytest
from execute import KERNEL_ENVIRONMENT

os.environ.update(KERNEL_ENVIRONMENT)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Drawings are not compared: their coordinates differ from one processor to another."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("image/svg+xml",)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Close every run with the state of the ledger."""
    terminalreporter.write_line(ledger.summary())
