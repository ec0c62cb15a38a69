"""The bugs of chapter 12: each is planted, found by its check, and gone afterwards."""

import inspect
import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from ppo_lib import PPO
from ppo_lib.book import bugs
from ppo_lib.envs import check_envs

SLOW = "check_my_trainer"
BOOK = Path(__file__).resolve().parents[1] / "book"


@pytest.mark.parametrize("name", [n for n, b in bugs.BUGS.items() if b.check not in ("", SLOW)])
def test_the_audit_finds_what_is_planted_and_nothing_afterwards(name):
    check = bugs.BUGS[name].check
    with bugs.planted(name):
        words = bugs.audited(check)
    assert words.startswith("your ")
    assert "none of the" not in words
    assert "right in all" in bugs.audited(check)


def test_the_audit_of_the_trainer_passes_it_and_finds_a_layer_that_does_not_learn():
    assert "right in all" in bugs.audited(SLOW)
    with bugs.planted("a layer that the optimizer does not see"):
        assert "has a policy that does not learn" in bugs.audited(SLOW)


def test_a_bug_is_gone_after_an_error_too():
    before = PPO.collect

    def fail():
        with bugs.planted("the value after the reset"):
            assert PPO.collect is not before
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert PPO.collect is before


def steps(env, actions):
    rows = [env.step(np.array(a)) for a in actions]
    return [np.stack(column) for column in zip(*(row[:4] for row in rows), strict=True)]


def test_the_ledge_and_the_well_step_by_step():
    env = bugs.Ledge(2)
    check_envs(env)
    env.reset(seed=0)
    env.place = np.array([0, 6])
    # The first jumps at once, waits one step and starts again; the second walks into the well.
    obs, rewards, died, cut = steps(env, [[0, 1]] * 2)
    assert rewards.tolist() == [[2, 1], [0, 1]]
    assert died.tolist() == [[True, False], [False, False]]
    assert obs[0].argmax(-1).tolist() == [0, 7]
    assert obs[1, 1].argmax() == 7
    assert not cut.any()
    rewards, died, cut = steps(env, [[1, 1]] * 6)[1:]
    assert cut[:, 1].tolist() == [False] * 5 + [True]
    assert not died.any()
    assert steps(env, [[1, 1]])[1][0, 1] == 0  # the reset pays nothing


def test_the_worth_of_the_ledge_by_hand():
    # Always right: from cell c ≤ 6 the well is reached after 7 - c steps and pays 10 from there.
    always = sum(0.9 ** max(6 - c, 0) * 10 for c in range(8)) / 8
    assert bugs.Ledge.worth(torch.ones(8).double()) == pytest.approx(always)
    # Always left: from cell c it jumps at step c + 1.
    jump = sum(0.9**c * 2 for c in range(8)) / 8
    assert bugs.Ledge.worth(torch.zeros(8).double()) == pytest.approx(jump)


def test_the_worth_of_the_ledge_by_play():
    # 4000 walks of 100 steps by a policy that goes right with 0.7; what is left weighs 0.9^100.
    env, dice = bugs.Ledge(4000), np.random.default_rng(1)
    env.limit = 1000
    env.reset(seed=0)
    total, alive = np.zeros(4000), np.ones(4000)
    for t in range(100):
        _, rewards, died, _, _ = env.step((dice.random(4000) < 0.7).astype(int))
        total += 0.9**t * alive * rewards
        alive *= ~died
    exact = bugs.Ledge.worth(torch.full((8,), 0.7, dtype=torch.float64))
    assert abs(total.mean() - exact) < 4 * total.std() / 4000**0.5


def test_the_puck_moves_by_a_fifth_and_pays_the_distance():
    env = bugs.Puck(1)
    check_envs(env)
    env.reset(seed=0)
    env.place = np.array([[1.0, 0.0]])
    obs, rewards, *_ = env.step(np.array([[-1.0, 0.5]]))
    assert obs[0].tolist() == pytest.approx([0.8, 0.1])
    assert rewards.tolist() == pytest.approx([-(0.65**0.5)])


def test_a_curve_has_a_score_for_every_update_and_stays_where_a_trainer_stops(monkeypatch):
    short = {"total_steps": 1024}
    assert len(bugs.curve("ledge", seed=0, **short)) == 2
    real, calls = PPO.update, []

    def stops(self, rollout):
        calls.append(0)
        if len(calls) == 2:
            raise ValueError
        return real(self, rollout)

    monkeypatch.setattr(PPO, "update", stops)
    first, second = bugs.curve("ledge", seed=0, **short)
    assert first == second


def test_the_interquartile_mean_of_literals():
    # Of 1 to 8 and an outlier's row beside them: the middle half is 3, 4, 5, 6.
    scores = np.array([[8.0, 1], [1, 2], [2, 900], [7, 3], [3, 4], [6, 5], [4, 6], [5, -700]])
    assert bugs.iqm(scores).tolist() == [4.5, 3.5]


def test_an_interval_holds_the_difference_and_excludes_0_where_there_is_one():
    dice = np.random.default_rng(3)
    a, b = dice.normal(size=20), dice.normal(size=20)
    gap, low, high = bugs.difference(a - 2, a)
    assert gap == pytest.approx(-2)
    assert low < gap < high < 0
    gap, low, high = bugs.difference(a, b)
    assert low < gap < high
    assert low < 0 < high


# ------------------------------------------------------------------ the chapter


def test_the_catalogue_of_the_chapter_is_that_of_the_code():
    cells = nbformat.read(BOOK / "12-silent-bugs.ipynb", as_version=4).cells
    text = next(cell.source for cell in cells if cell.source.startswith("| bug |"))
    rows = text.splitlines()[2:]
    assert len(rows) == len(bugs.BUGS)
    for row, bug in zip(rows, bugs.BUGS.values(), strict=True):
        _, name, says, breaks, reported, _ = (x.strip() for x in row.replace("\\|", "¦").split("|"))
        assert name == bug.name
        assert says == inspect.getdoc(bug.wrong).splitlines()[0]
        assert breaks == f"{{eq}}`{bug.breaks}`"
        assert all(seen.replace("#", "/issues/") in reported for seen in bug.seen)


def test_every_bug_has_its_runs_and_right_ones_beside_them():
    path = BOOK / "_data" / "bugs.json"
    stored, cases = bugs.load(path), json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert min(min(np.diff(entry["seeds"])) for entry in cases.values()) >= 1000
    assert len(bugs.BUGS) >= 15
    trained = [(task, bug) for bug in bugs.BUGS.values() for task in bug.tasks]
    for task, bug in trained:
        config = bugs.TASKS[task].config
        batch = config.num_envs * bug.changes.get("num_steps", config.num_steps)
        updates = bug.changes.get("total_steps", config.total_steps) // batch
        for name in (bug.name, bugs.right_beside(bug)):
            assert stored[task][name].shape == (20, updates)
