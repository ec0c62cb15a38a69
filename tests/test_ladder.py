"""The ladder: each rung against sums written out here, the last against `PPO`, and its data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ppo_lib import PPO, PPOConfig
from ppo_lib.book import ladder
from ppo_lib.book.ladder import Run, Stored
from ppo_lib.evaluate import play_episodes

DATA = Path(__file__).resolve().parents[1] / "book" / "_data" / "ladder.json"
GAMMA, LAMBDA = 0.98, 0.95


@pytest.fixture(scope="module")
def stored() -> dict[str, Stored]:
    return ladder.load(DATA)


def learner(seed: int = 0) -> PPO:
    """What `ladder.run` starts with, but one whose step is minus the gradient itself."""
    fresh = PPO("CartPole-v1", PPOConfig(seed=seed, max_grad_norm=1e9))
    fresh.optimizer = torch.optim.SGD(fresh.policy.parameters(), lr=1.0)
    return fresh


def flat(module: torch.nn.Module) -> Tensor:
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def log_prob_gradient(agent: PPO, obs: Tensor, action: int) -> Tensor:
    """∇ log π_θ(a | s) of a single step, in float64."""
    log_prob = agent.policy(obs).log_softmax(-1)[action]
    grads = torch.autograd.grad(log_prob, list(agent.policy.parameters()))
    return torch.cat([grad.flatten() for grad in grads]).double()


# -- the rungs -----------------------------------------------------------------------------


def test_all_rungs_start_with_the_same_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    actors = []

    def look(policy: torch.nn.Module, *_: Any, **__: Any) -> Tensor:
        actors.append(flat(policy))
        return torch.zeros(1)

    monkeypatch.setattr(ladder, "evaluate", look)
    for rung in ladder.RUNGS:
        ladder.run(rung, seed=3, total_steps=512)
    assert all(torch.equal(actor, actors[0]) for actor in actors[::2])
    assert not any(torch.equal(actor, actors[0]) for actor in actors[1::2])


@pytest.mark.parametrize("rung", ladder.RUNGS[:3])
def test_gradient_of_episodes_is_the_sum_over_steps(rung: str) -> None:
    agent, twin = learner(), learner()
    obs, actions, rewards, mask = play_episodes(twin.envs, twin.policy, twin.generator)
    lengths = mask.sum(0).tolist()
    assert len(set(lengths)) > 1, "no episode is padded"
    expected = torch.zeros(len(flat(twin.policy)), dtype=torch.float64)
    for n, length in enumerate(lengths):
        r = rewards[:, n].tolist()
        for t in range(length):
            first = 0 if rung == "return" else t
            weight = sum(GAMMA ** (i - first) * r[i] for i in range(first, length))
            if rung == "baseline":
                weight -= twin.critic(obs[t, n]).item()
            gradient = log_prob_gradient(twin, obs[t, n], int(actions[t, n]))
            expected += weight * gradient / len(lengths)
    before = flat(agent.policy)
    ladder.learn_from_episodes(agent, rung)
    moved = (flat(agent.policy) - before).double()
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
    assert agent.env_steps == sum(lengths)


@pytest.mark.parametrize("rung", ["one_step", "gae"])
def test_gradient_of_a_rollout_is_the_sum_over_steps(rung: str) -> None:
    agent, twin = learner(), learner()
    rollout = twin.collector.collect(twin.policy, 64, twin.generator)
    ended = rollout.terminated | rollout.truncated
    assert ended.any(), "no episode ends in the rollout"
    v, next_v = twin.critic(rollout.obs), twin.critic(rollout.next_obs)
    delta = (rollout.rewards + GAMMA * next_v * ~rollout.terminated - v).tolist()
    weights = torch.zeros(64, 8, dtype=torch.float64)
    for n in range(8):
        for t in range(64):
            for i in range(t, t + 1 if rung == "one_step" else 64):
                weights[t, n] += (GAMMA * LAMBDA) ** (i - t) * delta[i][n]
                if ended[i, n]:
                    break
    weights = (weights - weights.mean()) / weights.std()
    expected = torch.zeros(len(flat(twin.policy)), dtype=torch.float64)
    for t in range(64):
        for n in range(8):
            gradient = log_prob_gradient(twin, rollout.obs[t, n], int(rollout.actions[t, n]))
            expected += weights[t, n] * gradient / 8
    before = flat(agent.policy)
    ladder.learn_from_rollout(agent, rung)
    moved = (flat(agent.policy) - before).double()
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("rung", ladder.RUNGS[5:])
def test_only_the_last_rung_is_ppo_by_default(rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agents, make = [], ladder.make_learner

    def made(*args: Any, **numbers: Any) -> PPO:
        agents.append(make(*args, **numbers))
        return agents[-1]

    monkeypatch.setattr(ladder, "make_learner", made)
    ladder.run(rung, seed=1, total_steps=1500, learning_rate=3e-3)
    ppo = PPO("CartPole-v1", PPOConfig(seed=1, total_steps=1500, learning_rate=3e-3))
    ppo.learn()
    same = torch.equal(flat(agents[-1].policy), flat(ppo.policy))
    same_critic = torch.equal(flat(agents[-1].critic), flat(ppo.critic))
    assert agents[-1].env_steps == ppo.env_steps == 1024
    assert same == same_critic == (rung == "clip")


def test_run_evaluates_on_the_way_and_learns() -> None:
    run = ladder.run("clip", total_steps=5000)
    assert (run.rung, run.seed) == ("clip", 0)
    assert run.steps.tolist() == [0, 2048, 4096, 4608]
    assert run.returns[0] < 50
    assert run.returns[1:].max() > 100


def test_run_is_the_same_twice_and_differs_between_seeds() -> None:
    first, again, other = (ladder.run("reward_to_go", seed=s, total_steps=600) for s in (0, 0, 1))
    assert first.returns.tolist() == again.returns.tolist()
    assert first.returns.tolist() != other.returns.tolist()
    assert first.steps[0] == 0
    assert first.steps[-1] >= 512


@pytest.mark.parametrize(
    ("rung", "numbers", "message"),
    [
        ("ppo", {}, "rung is 'ppo', expected one of return, reward_to_go, .*clip"),
        ("gae", {"total_steps": 0}, "total_steps is 0, expected an integer of at least 1"),
        ("return", {"total_steps": 511}, "total_steps is 511, expected at least .* = 512"),
        ("clip", {"seed": -1}, "seed is -1, expected an integer from 0 to"),
        ("clip", {"learning_rate": 0.0}, r"learning_rate is 0\.0, expected a number above 0"),
    ],
)
def test_wrong_arguments_are_refused(rung: str, numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ladder.run(rung, **numbers)


# -- curves and tables, by hand --------------------------------------------------------------


def test_on_grid_takes_the_last_evaluation_by_then() -> None:
    run = Run("return", 0, np.array([0, 2100, 4200, 9999]), np.array([9.0, 20.0, 30.0, 40.0]))
    steps, returns = ladder.on_grid(run, 5000)
    assert steps.tolist() == [0, 2048, 4096, 4608]
    assert returns.tolist() == [9.0, 9.0, 20.0, 30.0]


def test_area_is_the_mean_return_over_the_budget() -> None:
    curves = np.array([[1.0, 3.0, 99.0], [2.0, 2.0, 0.0]])
    assert ladder.area(np.array([0, 10, 40]), curves).tolist() == [2.5, 2.0]


def test_table_by_hand() -> None:
    steps = np.array([0, 10, 20, 30])
    quick, late, never = [0, 480, 100, 500], [0, 0, 475, 300], [0, 0, 474.9, 400]

    def rung(*curves: list[float]) -> Stored:
        seeds = tuple(range(len(curves)))
        return Stored("gae", seeds, steps, np.array(curves, dtype=float), 1e-3, {})

    most, few = ladder.table({"a": rung(quick, late, never), "b": rung(quick, never, never)})
    assert (most.steps_to_solve, most.solved, most.seeds) == (20, 2, 3)
    assert (most.worst, most.final, most.best) == (300, 400, 500)
    assert most.area == pytest.approx(475 / 3)
    assert (few.steps_to_solve, few.solved) == (None, 1)


# -- what is stored --------------------------------------------------------------------------


def test_stored_runs_are_complete(stored: dict[str, Stored]) -> None:
    assert tuple(stored) == ladder.RUNGS
    for rung, s in stored.items():
        assert s.rung == rung
        assert s.seeds == stored["clip"].seeds
        assert len(s.seeds) >= 5
        assert s.steps.tolist() == stored["clip"].steps.tolist()
        assert s.returns.shape == (len(s.seeds), len(s.steps))
        assert s.returns.min() >= 1
        assert s.returns.max() <= 500


def test_stored_learning_rates_are_the_best_tried_and_those_of_the_code(
    stored: dict[str, Stored],
) -> None:
    for rung, s in stored.items():
        assert s.learning_rate == ladder.LEARNING_RATES[rung]
        assert s.areas[s.learning_rate] == max(s.areas.values())
        assert min(s.areas) < s.learning_rate < max(s.areas), "a better one may lie beyond"
        assert s.areas[s.learning_rate] == pytest.approx(
            np.median(ladder.area(s.steps, s.returns)), abs=0.01
        )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make ladder"):
        ladder.load(tmp_path / "ladder.json")
