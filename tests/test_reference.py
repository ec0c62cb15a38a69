"""The reference is written from the files; Python, which imports them, finds the same."""

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

import pytest
import reference

ARGS = re.compile(r"^Args:\n((?:    .*\n?|\n)+)", re.MULTILINE)
ARGUMENT = re.compile(r"^    (\*{0,2}\w+(?:, \w+)*):", re.MULTILINE)


def module(room: str) -> ModuleType:
    return importlib.import_module(f"ppo_lib.{room}")


def own(room: str) -> dict[str, Any]:
    """The public functions and classes that a room defines."""
    here = module(room)
    return {
        name: thing
        for name, thing in vars(here).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == here.__name__
    }


@pytest.mark.parametrize("room", reference.ROOMS)
def test_every_function_and_class_has_an_entry(room: str) -> None:
    assert [entry.name for entry in reference.entries(room)] == list(own(room))


@pytest.mark.parametrize("room", reference.ROOMS)
def test_entries_have_the_parameters_of_what_is_imported(room: str) -> None:
    for entry in reference.entries(room):
        thing = own(room)[entry.name]
        shown = [entry, *(each for each in entry.inside if each.kind == "method")]
        for each in shown:
            if each.kind == "class" and not each.parameters:
                continue  # made by dataclass or NamedTuple: its fields are listed
            target = thing if each is entry else getattr(thing, each.name.rpartition(".")[2])
            bound = each.kind == "method" and inspect.isfunction(
                inspect.getattr_static(thing, target.__name__)
            )
            names = list(inspect.signature(target).parameters)[int(bound) :]
            written = [re.match(r"\**(\w*)", words)[1] for words in each.parameters]
            assert [name for name in written if name] == names, each.name


@pytest.mark.parametrize("room", reference.ROOMS)
def test_a_docstring_explains_the_parameters_that_there_are(room: str) -> None:
    for name, thing in own(room).items():
        block = ARGS.search(inspect.getdoc(thing) or "")
        if block:
            explained = [a for found in ARGUMENT.findall(block[1]) for a in found.split(", ")]
            assert explained == list(inspect.signature(thing).parameters), name


def test_public_names_of_the_package_are_on_the_page() -> None:
    import ppo_lib

    found = {entry.name for room in reference.ROOMS for entry in reference.entries(room)}
    assert set(ppo_lib.__all__) <= found


def test_a_docstring_becomes_text_with_links() -> None:
    (paragraph,) = reference.blocks("See `gae` (eq-d23) and ``[T, N]``; arXiv:1506.02438.", "x")
    kinds = [child.tagname for child in paragraph.children]
    assert kinds == [
        *("#text", "pending_xref", "#text", "pending_xref", "#text", "literal", "#text"),
        *("reference", "#text"),
    ]
    targets = [x["reftarget"] for x in paragraph.findall(reference.addnodes.pending_xref)]
    assert targets == ["returns.gae", "eq-d23"]
