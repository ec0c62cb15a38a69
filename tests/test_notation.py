"""The notation page is what the reader of formulas knows, and each of its examples holds."""

import contextlib
import re

import ledger
import nbformat
import notation
import pytest
import torch
from lark.exceptions import UnexpectedInput

from ppo_lib.book import formulas
from ppo_lib.book.formulas import (
    FORMS,
    Form,
    Node,
    Relation,
    Symbol,
    Unreadable,
    find_tex,
    read_expression,
    read_formula,
)
from ppo_lib.book.printed import _compare

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def parts(node: Node):
    yield node
    for child in node.children():
        yield from parts(child)


def trees(form: Form):
    """The example of a form, as trees."""
    if form.value == "holds":
        return read_formula(form.example)
    return (read_expression(form.example),)


def test_the_page_is_made_from_the_forms() -> None:
    assert notation.PAGE.read_text(encoding="utf-8") == notation.render(), "run: make execute"
    assert notation.section() in notation.render()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.example)
def test_each_example_has_the_value_of_the_page(form: Form) -> None:
    world = notation.tiny_world()
    world.dots = [(read_expression("r_i"), read_expression("T-1"))]
    (tree,) = trees(form)
    if form.value == "holds":
        (relation,) = tree.relations
        assert _compare("eq-x", world, None, None, None, relation).why is None
        wrong = formulas.Sum((1, 1), (relation.right, formulas.Number("1")))
        wrong = Relation(relation.left, relation.sign, wrong)
        strict = relation.sign in "=~"
        assert not strict or _compare("eq-x", world, None, None, None, wrong).why is not None
        return
    value = world.value(tree, {})
    assert ", ".join(axis for axis in value.axes) == form.axes
    stated = torch.tensor([float(x) for x in form.value.split(", ")], dtype=torch.float64)
    torch.testing.assert_close(value.x.double().flatten(), stated, atol=5e-7, rtol=0)


def test_the_examples_use_all_that_the_reader_has() -> None:
    read = [part for form in FORMS for tree in trees(form) for part in parts(tree)]
    kinds = {type(part).__name__ for part in read}
    every = {cls.__name__ for cls in Node.__subclasses__()}
    assert kinds == every
    assert {r.sign for r in read if isinstance(r, Relation)} >= set(formulas.RELATIONS.values())
    known = {"log", "abs", "min", "max", "clip", "indicator", "grad", "norm"}
    assert {part.name for part in read if isinstance(part, formulas.Apply)} == known
    assert {part.kind for part in read if isinstance(part, formulas.Over)} == {"sum", "prod", "max"}


@pytest.mark.parametrize("token", [r"\frac{z}", r"\log", "⟦", r"\cases"])
def test_a_form_that_is_taken_away_is_not_read(token: str) -> None:
    whole = formulas._parser()
    fewer = formulas._parser(tuple(f for f in FORMS if token not in formulas._clean(f.example)))
    (form,) = (f for f in FORMS if formulas._clean(f.example).startswith(token))
    tex = formulas._clean(form.example)
    read = whole.parse(tex, start="expression")
    with contextlib.suppress(UnexpectedInput):
        assert fewer.parse(tex, start="expression") != read


# ------------------------------------------------------------------ one symbol, one meaning

#: Counts of the moment, which the page leaves to where they are used.
COUNTS = set("ijkmnKxyu") | {r"\tilde{s}"}
#: Signs that are no letter with a meaning of its own.
SIGNS = {r"\cdot", r"\infty", r"\sqrt", r"\arg", r"\max", formulas.BEFORE, "e"}
MATH = re.compile(r"\$([^$]+)\$")


def listed() -> set[str]:
    """The letters in the symbol columns of the page."""
    found = set()
    for line in notation.PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## What the reader"):
            break
        if not line.startswith("| $"):
            continue
        for tex in MATH.findall(line.split(" | ")[0].replace(r"\;", "")):
            try:
                tree = read_expression(tex)
            except Unreadable:
                continue
            found |= {part.base for part in parts(tree) if isinstance(part, Symbol)}
    return found


def used() -> dict[str, str]:
    """Each letter of the printed equations, and one of them that has it."""
    found = {}
    for path in ledger.chapters().values():
        for cell in nbformat.read(path, as_version=4).cells:
            for label in re.findall(r"\$\$ \((eq-[\w-]+)\)", cell.source):
                try:
                    statements = read_formula(find_tex(label, ledger.BOOK))
                except Unreadable:
                    continue
                for part in (part for statement in statements for part in parts(statement)):
                    if isinstance(part, Symbol):
                        found.setdefault(part.base, label)
    return found


def test_every_letter_of_the_equations_stands_on_the_page() -> None:
    page = listed() | COUNTS | SIGNS
    missing = {base: label for base, label in used().items() if base.rstrip("'") not in page}
    assert not missing, missing
