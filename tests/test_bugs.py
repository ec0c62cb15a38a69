"""The bugs of chapter 12: each is planted, found by its check, and gone afterwards."""

import inspect
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from ppo_lib import PPO, PPOConfig
from ppo_lib.book import bugs
from ppo_lib.distributions import DiagonalGaussian
from ppo_lib.envs import check_envs
from ppo_lib.networks import CategoricalPolicy

SLOW = "check_my_trainer"
BOOK = Path(__file__).resolve().parents[1] / "book"


#: What the audit calls each of them.
CALLED = {
    "a lost minus sign": "has lost its minus sign",
    "max for min": "takes the larger term, max for min",
    "min before the product": "takes the smaller ratio before it multiplies",
    "p and q swapped": "divides the old probability by the new one",
    "the old log-probability recomputed": "compares the new policy with itself",
    "the KL the wrong way": "has swapped the two policies",
    "the entropy punished": "has lost its minus sign",
    "(B,) against (B, 1)": "holds every value against every return, with a half",
    "the critic's target is its own value": "takes the values for the critic's targets",
    "no flag in GAE": "ignores both flags",
    "a time limit as a death": "treats a time limit as a death",
    "the next episode leaks in": "lets the next episode leak in",
    "γ lost in the recursion": "has lost γ in the recursion",
    "the recursion reads its own entry": "reads its own entry in the recursion",
    "the flags of the step after": "takes the flags of the step after",
    "the value after the reset": "takes the first observation after the reset",
    "the reset trained on as a step": "holds a reset as if it were a step",
    "the observation overwritten": "stores the observation after the step",
    "the clipped action stored": "stores the clipped action",
    "mean for sum over the action": "averages over the action",
    "a minibatch of one normalised": "makes 0 of a single advantage",
}


def test_every_bug_that_has_a_quick_check_has_its_name():
    assert list(CALLED) == [n for n, b in bugs.BUGS.items() if b.check not in ("", SLOW)]
    assert bugs.called("advantages from the new critic") == "nothing"


@pytest.mark.parametrize("name", CALLED)
def test_the_audit_finds_what_is_planted_and_nothing_afterwards(name):
    assert bugs.called(name) == CALLED[name]
    check = bugs.BUGS[name].check
    with bugs.planted(name):
        words = bugs.audited(check)
    assert words.startswith("your ")
    assert CALLED[name] in words
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


def test_every_episode_of_the_ledge_is_cut_after_eight_steps():
    env = bugs.Ledge(1)
    env.reset(seed=0)
    env.place = np.array([0])
    steps(env, [[0]] * 2)  # a jump, and the reset after it
    assert steps(env, [[1]] * 8)[3].tolist() == [[False]] * 7 + [[True]]


def test_a_puck_that_was_cut_is_put_back_for_nothing():
    env = bugs.Puck(3)
    env.reset(seed=0)
    env.place[:] = 5.0
    _, rewards, _, cut = steps(env, [[[0.0, 0.0]] * 3] * 11)
    assert cut.tolist() == [[False] * 3] * 9 + [[True] * 3] + [[False] * 3]
    assert rewards[:10].tolist() == [pytest.approx([-(50**0.5)] * 3)] * 10
    assert rewards[10].tolist() == [0.0] * 3
    assert np.abs(env.place).max() <= 1


def test_the_spaces_of_the_worlds():
    assert bugs.Ledge.single_observation_space == Box(0, 1, (8,))
    assert bugs.Ledge.single_action_space == Discrete(2)
    assert bugs.Puck.single_observation_space == Box(-9, 9, (2,))  # no puck comes so far
    assert bugs.Puck.single_action_space == Box(-1, 1, (2,))


@pytest.mark.parametrize("world", [bugs.Ledge, bugs.Puck])
def test_a_world_gives_what_its_space_says(world):
    env = world(3)
    actions = np.zeros(env.action_space.shape, env.action_space.dtype)
    for obs in (env.reset(seed=0)[0], env.step(actions)[0]):
        assert obs.dtype == np.float32
        assert env.observation_space.contains(obs)


def test_pucks_start_anywhere_on_the_table():
    env = bugs.Puck(1000)
    place = env.reset(seed=0)[0]
    assert np.abs(place).max(0) == pytest.approx(1, abs=0.02)
    assert place.min(0) == pytest.approx(-place.max(0), abs=0.02)


def test_the_worth_of_the_ledge_by_hand():
    # Always right: from cell c ≤ 6 the well is reached after 7 - c steps and pays 10 from there.
    always = sum(0.9 ** max(6 - c, 0) * 10 for c in range(8)) / 8
    assert bugs.Ledge.worth(torch.ones(8).double()) == pytest.approx(always)
    # Always left: from cell c it jumps at step c + 1.
    jump = sum(0.9**c * 2 for c in range(8)) / 8
    assert bugs.Ledge.worth(torch.zeros(8).double()) == pytest.approx(jump)


def test_the_worth_of_the_ledge_by_going_through_its_steps():
    right = np.random.default_rng(4).uniform(0.1, 0.9, 8)
    value = [0.0] * 8
    for _ in range(400):  # 0.9^400 is 5e-19
        value = [
            p * ((c >= 6) + 0.9 * value[min(c + 1, 7)])
            + (1 - p) * (2.0 if c == 0 else 0.9 * value[c - 1])
            for c, p in enumerate(right)
        ]
    assert bugs.Ledge.worth(torch.tensor(right)) == pytest.approx(sum(value) / 8)


def test_advantages_from_the_new_critic_are_those_of_the_critic_at_each_step():
    seen = []

    class Watched(PPO):
        def gradient(self, minibatch):
            with torch.no_grad():
                late = minibatch.returns - self.critic(minibatch.obs)
            seen.append((minibatch.advantages, (late - late.mean()) / late.std()))
            return super().gradient(minibatch)

    with (
        bugs.planted("advantages from the new critic"),
        Watched("CartPole-v1", PPOConfig(total_steps=512)) as trainer,
    ):
        trainer.update(trainer.collect())
    assert len(seen) == 16
    for found, expected in seen:
        assert torch.allclose(found, expected, atol=1e-4)


def test_softmax_twice_gives_probabilities_for_logits():
    policy = CategoricalPolicy(4, 2, (8,), torch.Generator().manual_seed(0))
    obs = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    logits = policy(obs)
    with bugs.planted("softmax twice"):
        found = policy(obs)
        alone = policy(obs[0])  # one observation, as the audit of the trainer asks
    assert torch.allclose(found, logits.exp() / logits.exp().sum(1, keepdim=True))
    assert torch.allclose(alone, found[0])


def test_a_clipped_action_is_stored_with_its_own_log_probability():
    config = PPOConfig(total_steps=32, num_envs=2, num_steps=16, minibatch_size=32)
    with bugs.planted("the clipped action stored"), PPO(bugs.Puck(2), config) as trainer:
        found = trainer.collect()
    assert found.actions.abs().max() == 1
    mean, log_std = found.dist_params.chunk(2, -1)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(found.actions).sum(-1)
    assert torch.allclose(found.log_probs, expected, atol=1e-5)


def test_mean_for_sum_is_the_mean_over_the_numbers_of_an_action_and_nothing_else():
    # log N(0; 0, 1) is -log(2π) / 2, in each of the two numbers of an action.
    with bugs.planted("mean for sum over the action"):
        found = DiagonalGaussian.log_prob(torch.zeros(3, 4, 4), torch.zeros(3, 4, 2))
    assert found.numpy() == pytest.approx(np.full((3, 4), -0.5 * np.log(2 * np.pi)))


def test_the_optimizer_that_has_forgotten_the_critic_is_the_same_in_all_else():
    config = PPOConfig(total_steps=2048, learning_rate=0.003)
    with bugs.planted("the critic forgotten"), PPO("CartPole-v1", config) as trainer:
        (group,) = trainer.optimizer.param_groups
        actor = list(trainer.policy.parameters())
    assert (group["lr"], group["eps"]) == (0.003, 1e-5)
    assert [id(p) for p in group["params"]] == [id(p) for p in actor]


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
    calls[:] = [0]  # and before the first update there is none to keep
    assert bugs.curve("ledge", seed=0, **short) == [0.0, 0.0]


@pytest.mark.parametrize("task", ["ledge", "puck"])
def test_a_curve_begins_as_the_stored_one_does(task, monkeypatch):
    real, calls = PPO.update, []

    def stops(self, rollout):
        calls.append(0)
        if len(calls) == 3:
            raise ValueError
        return real(self, rollout)

    monkeypatch.setattr(PPO, "update", stops)
    stored = bugs.load(BOOK / "_data" / "bugs.json")[task]["right"][0]
    assert bugs.curve(task, seed=0)[:2] == pytest.approx(stored[:2].tolist(), abs=0.02)


def test_the_score_on_the_ledge_is_the_worth_of_the_policy_as_it_is():
    with PPO(bugs.Ledge(16), bugs.TASKS["ledge"].config) as trainer, torch.no_grad():
        trainer.policy.net[-1].weight.zero_()
        trainer.policy.net[-1].bias.copy_(torch.tensor([0.0, np.log(3)]))  # right with 3/4
        found = bugs.TASKS["ledge"].score(trainer)
    assert found == pytest.approx(bugs.Ledge.worth(torch.full((8,), 0.75).double()), rel=1e-5)


def test_nothing_is_drawn_over_a_curve_or_an_audit(monkeypatch):
    wanted = []
    monkeypatch.setattr(PPO, "learn", lambda *_, show_progress=True: wanted.append(show_progress))
    bugs.curve("ledge", seed=0, total_steps=512)
    bugs.audited(SLOW)  # nothing is learned in the first world, and no other is tried
    assert wanted == [False, False]


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
    # The mean of 0, 1 and 1 drawn again is 0 in one draw of 27, which is 3.7 percent.
    two_ones, one = np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0])
    assert bugs.difference(two_ones, np.zeros(3)) == pytest.approx((2 / 3, 0, 1))
    assert bugs.difference(np.zeros(3), one) == pytest.approx((-1 / 3, -1, 0))


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
        assert breaks == ", ".join(f"{{eq}}`{label}`" for label in bug.breaks)
        links = re.findall(r"\(https://github\.com/([^)]*)\)", reported)
        assert links == [seen.replace("#", "/issues/") for seen in bug.seen]
        assert bool(links) != (reported == "—")


def test_every_bug_has_its_runs_and_right_ones_beside_them():
    path = BOOK / "_data" / "bugs.json"
    stored, cases = bugs.load(path), json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert min(min(np.diff(entry["seeds"])) for entry in cases.values()) >= 1000
    assert len(bugs.BUGS) >= 15
    trained = [
        (task, name, bug.changes)
        for bug in bugs.BUGS.values()
        for task in bug.tasks
        for name in (bug.name, bugs.right_with(bug.changes))
    ]
    trained += [(task, bugs.right_with(changes), changes) for task, changes in bugs.CONTROLS]
    for task, name, changes in trained:
        config = bugs.TASKS[task].config
        batch = config.num_envs * changes.get("num_steps", config.num_steps)
        updates = changes.get("total_steps", config.total_steps) // batch
        assert stored[task][name].shape == (50, updates)
