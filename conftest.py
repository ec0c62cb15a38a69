"""Kernels and tests run alike, whether `make test` or a plain `pytest --nbval` starts them."""

import os
import random
from itertools import groupby

import ledger
import pytest
from execute import KERNEL_ENVIRONMENT

os.environ.update(KERNEL_ENVIRONMENT)
if "TEST_THREADS" in os.environ:  # tools/matrix.py
    os.environ["OMP_NUM_THREADS"] = os.environ["TEST_THREADS"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where TEST_ORDER is a seed, mix the files, and in a file all but the cells of a notebook."""
    if "TEST_ORDER" in os.environ:
        draw = random.Random(os.environ["TEST_ORDER"])
        files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
        draw.shuffle(files)
        for tests in files:
            if tests[0].path.suffix == ".py":
                draw.shuffle(tests)
        items[:] = [item for tests in files for item in tests]


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Drawings are not compared: their coordinates differ from one processor to another."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("image/svg+xml",)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Close every run with the state of the ledger."""
    terminalreporter.write_line(ledger.summary())
