"""The room for experiments: what is missing is made, and nothing is mixed."""

import json
from pathlib import Path

import pytest
from experiments import Experiment, Job, Run, arguments, seeds_of


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


def test_seeds_are_counted_from_the_first_that_was_asked_for() -> None:
    parser = arguments("What it does.", cases=["a", "b"])
    assert list(seeds_of(parser.parse_args([]), 3)) == [0, 1, 2]
    data = ["--data", "a.json"]
    assert list(seeds_of(parser.parse_args(["--first", "200", *data]), 2)) == [200, 201]
    args = parser.parse_args(["--first", "7", "--seeds", "1", "--only", "b", *data])
    assert list(seeds_of(args, 9)) == [7]
    assert args.only == ["b"]


def test_other_seeds_are_stored_with_the_words_that_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tools/it.py", "--first", "200", "--data", "a b.json"])
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    room(tmp_path / "data.json").go_on([[("a", 200)]], processes=1)
    made_by = json.loads((tmp_path / "data.json").read_text())["made_by"]
    words = "python tools/it.py --first 200 --data 'a b.json'"
    assert made_by == f"ATEN_CPU_CAPABILITY=default {words}"


def test_cases_that_are_made_together_are_not_chosen_from() -> None:
    with pytest.raises(SystemExit):
        arguments("What it does.").parse_args(["--only", "a"])


def test_other_seeds_are_not_added_to_the_file_of_the_book() -> None:
    with pytest.raises(SystemExit, match="--first 200 needs --data"):
        seeds_of(arguments("What it does.").parse_args(["--first", "200"]), 2)


def test_runs_of_another_torch_are_not_mixed(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    room(data).go_on([[("a", 0)]], processes=1)
    kept = json.loads(data.read_text())
    kept["made_with"]["torch"] = "1.0"
    data.write_text(json.dumps(kept))
    with pytest.raises(SystemExit, match=r"has torch 1\.0, here it is .*: remove it"):
        room(data).go_on([[("a", 1)]], processes=1)
    assert json.loads(data.read_text()) == kept
