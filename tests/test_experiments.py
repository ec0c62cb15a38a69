"""The room for experiments, and the statistics of the book, against numbers worked by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from experiments import Experiment, Job, Run

from ppo_lib.book.evidence import improvement, interval, iqm


def train(jobs: list[Job]) -> list[Run]:
    """What tells the runs apart."""
    return [{"score": len(case) + seed, "curve": [seed, 2 * seed]} for case, seed in jobs]


def room(data: Path, size: int = 1) -> Experiment:
    return Experiment("make it", data, ("Makefile",), {"size": size}, train, {"a": {"says": "A"}})


def test_what_is_missing_is_made_once_and_kept(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    room(data).go_on([[("a", 3), ("bb", 3)]], processes=1)
    jobs = [[("a", 3), ("a", 1)], [("bb", 3)]]
    again = room(data)
    assert again.missing(jobs) == [[("a", 1)]]
    again.go_on(jobs, processes=1)
    kept = json.loads(data.read_text())
    assert kept["size"] == 1
    assert {"commit", "processor", "vector_instructions", "made_with"} <= kept.keys()
    a = {"says": "A", "seeds": [1, 3], "score": [2, 4], "curve": [[1, 2], [3, 6]]}
    assert kept["cases"]["a"] == a
    assert kept["cases"]["bb"] == {"seeds": [3], "score": [5], "curve": [[3, 6]]}


def test_runs_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    room(data).go_on([[("a", 0)]], processes=1)
    before = data.read_text()
    room(data, size=2).go_on([[("a", 0)]], processes=1)  # nothing is missing
    with pytest.raises(SystemExit, match="has size 1, here it is 2: remove it"):
        room(data, size=2).go_on([[("a", 1)]], processes=1)
    assert data.read_text() == before


def test_statistics_by_hand() -> None:
    runs = np.array([0.0, 1, 2, 3, 4, 5, 6, 700])
    assert iqm(runs) == 3.5
    low, high = interval(runs)
    assert 0 < low < 3.5 < high < 400
    assert interval(np.full(9, 2.0)) == (2, 2)
    share, low, high = improvement(np.array([1.0, 2, 3]), np.array([2.0, 0]))
    assert share == pytest.approx((1 + 1.5 + 2) / 6)
    assert low < share < high
    assert improvement(runs + 1000, runs) == (1, 1, 1)


def test_the_interval_holds_as_often_as_it_says() -> None:
    dice = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        _, low, high = improvement(dice.normal(size=20), dice.normal(size=20))
        held += low <= 0.5 <= high
    assert held >= 85
