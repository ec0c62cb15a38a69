"""The ledger: every statement of the source has its equation, its check and its function."""

import importlib
import re
from collections import defaultdict

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


@pytest.fixture(scope="module")
def definitions():
    """The chapters that define each label, once for each time that they do."""
    places = defaultdict(list)
    for number, path in CHAPTERS.items():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                for label in re.findall(r"\$\$ \((eq-[\w-]+)\)$", cell.source, re.MULTILINE):
                    places[label].append(number)
    return places


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.id)
def test_statement_stands_in_its_chapter_alone(statement: ledger.Statement, definitions) -> None:
    assert definitions[statement.label] == [statement.chapter]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.id)
def test_function_exists(statement: ledger.Statement) -> None:
    module, _, name = statement.function.rpartition(".")
    assert getattr(importlib.import_module(module), name).__doc__


def test_every_statement_is_checked() -> None:
    assert not ledger.unchecked()
    assert ledger.summary() == "71 of 71 statements are checked"


#: What the source's own formulas get wrong, found by running them (E8 and A5 are not run).
OFF = ["A7", "B2", "D5", "D6", "D12", "D25", "E6", "E12"]
#: They ask for a step that no trajectory has: the source begins to count at t = 1, or ends at T.
NO_NUMBER = ["A14", "B10", "B11", "B12", "C4", "D4", "D26", "E7", "E9", "E10", "E13"]


def test_the_sources_own_formulas_are_run_and_what_is_loose_is_found() -> None:
    ids = {s.label: s.id for s in STATEMENTS}
    runs = [ledger.source_runs(path) for path in CHAPTERS.values()]
    said = {ids[label]: words for run in runs for label, words in run.items()}
    assert len(said) >= 51
    assert [i for i, words in said.items() if words.startswith("off by")] == OFF
    assert sorted(i for i, words in said.items() if words.startswith("no number")) == sorted(
        NO_NUMBER
    )
    assert not [words for words in said.values() if words.startswith("no value")]
    rest = [words for i, words in said.items() if i not in OFF + NO_NUMBER]
    assert set(rest) == {"the same"}
    mended = {s.id: s.needs for s in STATEMENTS if s.needs}
    assert sorted(mended) == sorted(OFF + NO_NUMBER)
    for i, needs in mended.items():
        assert said[i].endswith(f"; with {needs}: the same")


def test_page_is_made_from_the_ledger_and_the_outputs() -> None:
    assert ledger.PAGE.read_text(encoding="utf-8") == ledger.render(), "run: make execute"
