"""What `make collapse` has stored: complete, and each case one change of the base."""

import json
from dataclasses import fields

import collapse
import pytest
from experiments import ROOT

from ppo_lib import PPOConfig

DATA = ROOT / "book" / "_data"


@pytest.mark.parametrize(("name", "first"), [("collapse", 0), ("collapse-again", 200)])
def test_every_case_has_every_seed(name: str, first: int) -> None:
    stored = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    assert stored["steps"] == collapse.CLIMB.steps.tolist()
    assert list(stored["cases"]) == list(collapse.CASES)
    for case, entry in stored["cases"].items():
        assert entry["changes"] == collapse.CASES[case]
        assert entry["seeds"] == list(range(first, first + 50))
        assert len(entry["finals"]) == 50
        assert {len(returns) for returns in entry["returns"]} == {len(stored["steps"])}


@pytest.mark.parametrize("name", collapse.CASES)
def test_a_case_changes_one_field(name: str) -> None:
    changes = collapse.CASES[name]
    known = {field.name for field in fields(PPOConfig)}
    assert changes.keys() <= known
    shown = ", ".join(f"{key}={value!r}".removesuffix(".0") for key, value in changes.items())
    assert name == (shown or "base")
    assert len(changes) == (name != "base")
