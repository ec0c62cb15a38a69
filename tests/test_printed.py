"""The chapters' checks of their own print: a misprint on the page makes them fail."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import ledger
import nbformat
import pytest

from ppo_lib.book import printed
from ppo_lib.book.checks import CheckFailed
from ppo_lib.book.formulas import Unreadable, find_tex
from ppo_lib.book.printed import check_equation

CHAPTERS = {n: path for n, path in ledger.chapters().items() if ledger.printed(path)}
#: Where the first minus stands in a bound and the misprint reaches behind the end of an episode,
#: where nothing is paid, or where it is T - t at t = 0: the check names it as equivalent.
UNSEEN = {"eq-a6", "eq-d12", "eq-return-split", "eq-d25", "eq-finite-weights", "eq-telescoping"}


def checks_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What a chapter checks of its print: each label, and the check of it in another folder."""
    found = []

    def record(label: str, *args: Any, **numbers: Any) -> None:
        found.append((label, partial(check_equation, label, *args, **numbers)))

    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    setup = next(i for i, cell in enumerate(cells) if "set_style()" in cell.source)
    namespace: dict[str, Any] = {"__name__": "__chapter__"}
    monkeypatch.setattr(printed, "check_equation", record)
    for i, cell in enumerate(cells):
        if i <= setup or cell.id.startswith("print-"):
            exec(compile(cell.source, path.name, "exec"), namespace)
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("number", sorted(CHAPTERS))
def test_a_minus_that_became_a_plus_on_the_page_is_caught(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ledger.BOOK)
    tried = []
    for label, check in checks_of(CHAPTERS[number], monkeypatch):
        tex = find_tex(label, ledger.BOOK)
        wrong = re.sub(r"(?<!\\)-", "+", tex, count=1)
        if wrong == tex or label in UNSEEN:
            continue
        cell = {"source": [f"$$\n{wrong}\n$$ ({label})"]}
        (tmp_path / "misprint.ipynb").write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
        with pytest.raises((CheckFailed, Unreadable)):
            check(folder=tmp_path)
        tried.append(label)
    assert tried or number in (1, 9)


def test_what_runs_from_print_is_most_of_what_is_displayed() -> None:
    run = {label for path in CHAPTERS.values() for label in ledger.printed(path)}
    statements = {s.label for s in ledger.statements()}
    assert len(run) >= 134
    assert len(run & statements) >= 60
    made = [numbers for path in CHAPTERS.values() for numbers in ledger.printed(path).values()]
    seen, every = (sum(numbers) for numbers in zip(*made, strict=True))
    assert seen / every >= 0.95
