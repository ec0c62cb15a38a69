"""The ledger: every statement of the source has its equation, its check and its function."""

import importlib
import re

import ledger
import nbformat
import pytest

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
