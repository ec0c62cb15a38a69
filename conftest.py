"""Kernels and tests run alike, whether `make test` or a plain `pytest --nbval` starts them."""

import os

import ledger
import pytest
from execute import KERNEL_ENVIRONMENT

os.environ.update(KERNEL_ENVIRONMENT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Close every run with the state of the ledger."""
    terminalreporter.write_line(ledger.summary())
