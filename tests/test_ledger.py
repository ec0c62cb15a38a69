"""The ledger: every statement of the source has its equation, its check and its function."""

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ledger
import matplotlib as mpl
import nbformat
import pytest
import torch

from ppo_lib.book import checks

STATEMENTS = ledger.statements()
CHAPTERS = ledger.chapters()
PER_LETTER = {"A": 16, "B": 12, "C": 4, "D": 26, "E": 13}


def test_ledger_holds_the_71_statements_in_order() -> None:
    expected = [f"{letter}{i + 1}" for letter, n in PER_LETTER.items() for i in range(n)]
    assert [s.id for s in STATEMENTS] == expected
    assert len(expected) == 71
    assert len({s.label for s in STATEMENTS}) == 71


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.id)
def test_statement_stands_in_its_chapter_alone(statement: ledger.Statement) -> None:
    definition = re.compile(rf"\$\$ \({statement.label}\)$", re.MULTILINE)
    places = [
        number
        for number, path in CHAPTERS.items()
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for _ in definition.findall(cell.source)
    ]
    assert places == [statement.chapter]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.id)
def test_function_exists(statement: ledger.Statement) -> None:
    module, _, name = statement.function.rpartition(".")
    assert getattr(importlib.import_module(module), name).__doc__


def test_every_statement_is_checked() -> None:
    assert not ledger.unchecked()
    assert ledger.summary() == "71 of 71 statements are checked"


def test_page_is_made_from_the_ledger_and_the_outputs() -> None:
    assert ledger.PAGE.read_text(encoding="utf-8") == ledger.render(), "run: make execute"


# -- every check can fail --------------------------------------------------------------------


def code(path: Path) -> Iterator[str]:
    """The cells whose outputs are compared, and those that check something.

    Training and timing are left out; no check may need them.  So are the checks of what is
    printed, which change each formula themselves.
    """
    for cell in nbformat.read(path, as_version=4).cells:
        ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
        if cell.cell_type == "code" and not ignored and not cell.id.startswith("print-"):
            yield cell.source.rstrip().rstrip(";")


def spoiled(value: Any) -> torch.Tensor:
    """The same numbers but one, which is off by a millionth of the largest."""
    right = torch.as_tensor(value, dtype=torch.float64).detach()
    numbers = right.flatten().clone()
    numbers[numbers.abs().argmax()] += 1e-6 * max(1.0, float(numbers.abs().max()))
    return numbers.reshape(right.shape)


class Recorder:
    """Stands in for the two checks: runs each one, then sees it fail in every way it should."""

    def __init__(self) -> None:
        self.labels: set[str] = set()
        self.failures = 0

    def check_exact(self, label: str, left: Any, right: Any, *, rejects: Any, **more: Any) -> None:
        checks.check_exact(label, left, right, rejects=rejects, **more)
        lefts = [spoiled(left), *rejects.values()]
        self.expect(
            label,
            [
                lambda x=x: checks.check_exact(label, x, right, rejects=rejects, **more)
                for x in lefts
            ],
        )

    def check_estimate(
        self, label: str, samples: Any, exact: Any, *, rejects: Any, **more: Any
    ) -> None:
        checks.check_estimate(label, samples, exact, rejects=rejects, **more)
        deviation = samples.double().std(dim=0) / len(samples) ** 0.5
        shifted = samples.double() + 9 * deviation + 1e-9
        self.expect(
            label,
            [
                lambda: checks.check_estimate(label, shifted, exact, rejects=rejects, **more),
                *(
                    lambda x=x: checks.check_estimate(label, samples, x, rejects=rejects, **more)
                    for x in rejects.values()
                ),
            ],
        )

    def expect(self, label: str, wrong: list[Callable[[], None]]) -> None:
        for check in wrong:
            with pytest.raises(checks.CheckFailed):
                check()
        self.labels.add(label)
        self.failures += len(wrong)


# matplotlib takes a tensor for an array in a way that numpy will not allow for ever.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("number", sorted(CHAPTERS))
def test_every_check_of_a_chapter_can_fail(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    mpl.use("agg")
    monkeypatch.chdir(ledger.BOOK)
    namespace: dict[str, Any] = {"__name__": "__chapter__"}
    for cell in code(CHAPTERS[number]):
        try:
            exec(compile(cell, f"chapter {number}", "exec"), namespace)
        except Exception:
            # It looks at a training run that was left out; nbval runs it after that run.
            if "check_" in cell:
                raise
        # From the cell on that imported them, the names of the checks mean the recorder's.
        for name in {"check_exact", "check_estimate"} & namespace.keys():
            namespace[name] = getattr(recorder, name)
    mpl.pyplot.close("all")
    expected = {s.label for s in STATEMENTS if s.chapter == number}
    assert expected <= recorder.labels
    with capsys.disabled():
        print(f"\nchapter {number}: {len(expected)} statements, {recorder.failures} failures seen")
