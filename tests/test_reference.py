"""The page of reference: what it lists, and how a docstring is read."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import reference

import ppo_lib

PAGE = Path(__file__).resolve().parents[1] / "book" / "reference.md"
ARGS = re.compile(r"^Args:\n((?:    .*\n?|\n)+)", re.MULTILINE)
ARGUMENT = re.compile(r"^    (\*{0,2}\w+(?:, \w+)*):", re.MULTILINE)


def own(room: str) -> dict[str, Any]:
    """The public functions and classes that a room defines."""
    here = importlib.import_module(f"ppo_lib.{room}")
    return {
        name: thing
        for name, thing in vars(here).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == here.__name__
    }


def test_the_page_lists_the_rooms_that_pages_lead_to() -> None:
    listed = re.findall(r"automodule:: ppo_lib\.(\S+)", PAGE.read_text(encoding="utf-8"))
    assert listed == list(reference.ROOMS)


@pytest.mark.parametrize("room", reference.ROOMS)
def test_everything_public_says_what_it_is(room: str) -> None:
    assert not [name for name, thing in own(room).items() if not thing.__doc__]


@pytest.mark.parametrize("room", reference.ROOMS)
def test_a_docstring_explains_the_parameters_that_there_are(room: str) -> None:
    for name, thing in own(room).items():
        block = ARGS.search(inspect.getdoc(thing) or "")
        if block:
            explained = [a for found in ARGUMENT.findall(block[1]) for a in found.split(", ")]
            assert explained == list(inspect.signature(thing).parameters), name


@pytest.mark.parametrize("room", reference.ROOMS)
def test_what_is_returned_is_no_type(room: str) -> None:
    """What stands before a colon in the first line would be read as one."""
    things = list(own(room).items())
    for name, thing in [*things, *(pair for _, x in things for pair in vars(x).items())]:
        says = getattr(thing, "__doc__", None) or ""
        first = re.search(r"^ *Returns:\n *(.*)", says, re.MULTILINE)
        assert first is None or not re.search(r":( |$)", first[1]), name


def test_public_names_of_the_package_have_an_entry() -> None:
    assert set(ppo_lib.__all__) - {"__version__"} <= reference.names().keys()


@pytest.mark.parametrize(
    ("full", "written", "read"),
    [
        ("ppo_lib.ppo", "`gae` (eq-d23)", ":py:obj:`gae <ppo_lib.returns.gae>` (:eq:`eq-d23`)"),
        ("ppo_lib.ppo.PPO.load", "see `save`", "see :py:obj:`save <ppo_lib.ppo.PPO.save>`"),
        ("ppo_lib.ppo", "``[T, N, *S]`` of `what`", "``[T, N, *S]`` of ``what``"),
        ("ppo_lib.ppo", "|Â| *A*, r_t and Σ_{t'}", r"\|Â\| \*A\*, r_t and Σ\_{t\'}"),
        (
            "ppo_lib.ppo",
            "arXiv:1506.02438.",
            "`arXiv:1506.02438 <https://arxiv.org/abs/1506.02438>`__.",
        ),
    ],
)
def test_a_docstring_becomes_text_with_links(full: str, written: str, read: str) -> None:
    lines = written.split("\n")
    reference.write(None, "module", full, None, None, lines)
    assert "\n".join(lines) == read
