"""Probes: worlds so small that what must be learned of them is known, each testing one thing more.

A value that the trainer can't learn of a constant reward is a fault of the critic; one that
only the second world shows is a fault in what the critic sees; and so on.  Every world is
learned by `PPO` itself, with Discrete actions and with actions in a Box.
"""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TimeLimit

from ppo_lib import PPO, PPOConfig

GAMMA = 0.9
CONFIG = PPOConfig(
    total_steps=3200,
    num_envs=8,
    num_steps=10,
    minibatch_size=80,
    num_epochs=8,
    learning_rate=1e-2,
    gamma=GAMMA,
    max_grad_norm=100.0,
    hidden_sizes=(8,),
)
#: The spread of a Gaussian takes longer to fall than a probability to rise.
LONGER = {"total_steps": 6400}
ACTIONS = {"discrete": Discrete(2), "continuous": Box(-2, 2, (1,))}
both_kinds_of_action = pytest.mark.parametrize("kind", ACTIONS)


class Probe(gym.Env):
    """An observation that is drawn at the start; ``length`` steps, or no end for 0.

    Args:
        kind: of the actions, "discrete" or "continuous".
        reward: of the sign that was drawn, the action and the number of the step, from 1.
        starts: the signs that are drawn from.
        length: of an episode.
        offset: added to what is observed.
    """

    def __init__(self, kind, reward, starts=(1,), length=1, offset=0):
        self.observation_space, self.action_space = Box(-2000, 2000, (1,)), ACTIONS[kind]
        self.reward, self.starts, self.length, self.offset = reward, starts, length, offset

    def _obs(self):
        return np.array([self.offset + self.start + self.count], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.count, self.start = 0, int(self.np_random.choice(self.starts))
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.count += 1
        paid = float(self.reward(self.start, float(np.sum(action)), self.count))
        return self._obs(), paid, self.count == self.length, False, {}


class Endless(Probe):
    """Looks the same at every step: nothing says how many are left."""

    def _obs(self):
        return np.ones(1, dtype=np.float32)


class Walk(gym.Env):
    """Observes 100 times the number of the episode, plus the number of the step."""

    def __init__(self, kind, dies=0):
        self.observation_space, self.action_space = Box(0, 2000, (1,)), ACTIONS[kind]
        self.dies, self.episode = dies, 0

    def _obs(self):
        return np.array([100 * self.episode + self.count], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.episode, self.count = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.count += 1
        return self._obs(), 1.0, self.count == self.dies, False, {}


def limited(env):
    return TimeLimit(env, 5)


def learned(kind, reward, *, cls=Probe, wrap=None, world=None, **changes):
    def make():
        env = cls(kind, reward, **(world or {}))
        return env if wrap is None else wrap(env)

    trainer = PPO(make, dataclasses.replace(CONFIG, **changes))
    trainer.learn()
    return trainer


@torch.no_grad()
def value(trainer, obs):
    return trainer.critic(torch.tensor([float(obs)])).item()


@torch.no_grad()
def probability_of_1(trainer, obs):
    return trainer.policy(torch.tensor([float(obs)])).softmax(-1)[1].item()


@torch.no_grad()
def mean_and_std(trainer, obs):
    mean, log_std = trainer.policy(torch.tensor([float(obs)]))
    return mean.item(), log_std.exp().item()


def matches(sign, action, _):
    """1 for action 1 in state 1 and action 0 in state -1, otherwise -1."""
    return 1 if (action == 1) == (sign == 1) else -1


# ------------------------------------------------------------------ values alone


@both_kinds_of_action
def test_1_a_constant_reward_is_the_value(kind):
    # One step pays 1: V = 1.
    trainer = learned(kind, lambda *_: 1.0, total_steps=1600)
    assert value(trainer, 1) == pytest.approx(1, abs=0.01)


@both_kinds_of_action
def test_2_the_value_follows_the_observation(kind):
    # One step pays what is observed, -1 or 1: V(-1) = -1 and V(1) = 1.
    trainer = learned(kind, lambda sign, *_: sign, world={"starts": (-1, 1)}, total_steps=1600)
    assert value(trainer, -1) == pytest.approx(-1, abs=0.01)
    assert value(trainer, 1) == pytest.approx(1, abs=0.01)


@both_kinds_of_action
def test_3_a_reward_one_step_ahead_is_discounted_once(kind):
    # Two steps, the second pays 1: V(s_1) = 1 and V(s_0) = γ = 0.9.  No discount would give 1,
    # one that is applied twice 0.81, and a value after the end something else.
    world = {"starts": (0,), "length": 2}
    trainer = learned(kind, lambda _, __, count: count == 2, world=world)
    assert value(trainer, 0) == pytest.approx(0.9, abs=0.01)
    assert value(trainer, 1) == pytest.approx(1, abs=0.01)


# ------------------------------------------------------------------ actions


@pytest.mark.parametrize("loss", ["clip", "kl"])
def test_4_the_action_that_pays_is_taken(loss):
    # Action 1 pays 1, action 0 pays -1: V = p - (1 - p) = 2p - 1 with p = π(1) near 1.
    trainer = learned("discrete", lambda _, action, __: 2 * action - 1, loss=loss)
    right = probability_of_1(trainer, 1)
    assert right > 0.95
    assert value(trainer, 1) == pytest.approx(2 * right - 1, abs=0.03)
    assert value(trainer, 1) > 0.9


@pytest.mark.parametrize("loss", ["clip", "kl"])
def test_4_the_number_that_pays_is_learned(loss):
    # -(a - 1/2)² has the mean -(mean - 1/2)² - σ², which is best at 1/2 with σ = 0.
    trainer = learned(
        "continuous", lambda _, action, __: -((action - 0.5) ** 2), loss=loss, **LONGER
    )
    mean, std = mean_and_std(trainer, 1)
    assert mean == pytest.approx(0.5, abs=0.05)
    assert std < 0.15
    assert value(trainer, 1) == pytest.approx(-((mean - 0.5) ** 2) - std**2, abs=0.01)


@pytest.mark.parametrize("loss", ["clip", "kl"])
def test_5_the_action_that_pays_depends_on_the_observation(loss):
    trainer = learned("discrete", matches, world={"starts": (-1, 1)}, loss=loss)
    assert probability_of_1(trainer, -1) < 0.05
    assert probability_of_1(trainer, 1) > 0.95
    for obs in (-1, 1):
        assert value(trainer, obs) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("loss", ["clip", "kl"])
def test_5_the_number_that_pays_depends_on_the_observation(loss):
    trainer = learned(
        "continuous",
        lambda sign, action, _: -((action - sign / 2) ** 2),
        world={"starts": (-1, 1)},
        loss=loss,
        **LONGER,
    )
    for obs in (-1, 1):
        mean, std = mean_and_std(trainer, obs)
        assert mean == pytest.approx(obs / 2, abs=0.05)
        assert std < 0.15


# ------------------------------------------------------------------ endings


@both_kinds_of_action
def test_6_a_time_limit_is_not_a_death(kind):
    # Reward 1 for ever, γ = 0.9: V = 1 / (1 - 0.9) = 10, whenever the recording is cut.
    # If the world does end after 5 steps, k of them are left with k = 1 to 5, and what V is
    # trained towards is Σ_{j<k} (γλ)^j + γ (1-λ) V Σ_{j<k-1} (γλ)^j with γλ = 0.855.  The sums
    # are 1, 1.855, 2.586, 3.211 and 3.745, so that V = 2.4795 + 0.0779 V = 2.689: the mean of
    # the five, since the critic can't tell them apart.
    changes = {"num_envs": 4, "minibatch_size": 40, "total_steps": 1600, "learning_rate": 2e-2}
    cut = learned(kind, lambda *_: 1.0, cls=Endless, wrap=limited, world={"length": 0}, **changes)
    assert value(cut, 1) == pytest.approx(10, abs=0.02)
    dead = learned(kind, lambda *_: 1.0, cls=Endless, world={"length": 5}, **changes)
    assert value(dead, 1) == pytest.approx(2.689, abs=0.01)


def rollouts(make, updates):
    """What each update of a trainer was given, in 7 steps of 1 environment."""
    config = PPOConfig(
        total_steps=7 * updates, num_envs=1, num_steps=7, minibatch_size=7, hidden_sizes=()
    )
    given = []

    class Watched(PPO):
        def update(self, rollout):
            given.append(rollout)
            return super().update(rollout)

    Watched(make, config).learn()
    return given


@both_kinds_of_action
@pytest.mark.parametrize("flag", ["truncated", "terminated"])
def test_6_no_step_is_invented_where_an_episode_ends(kind, flag):
    # Episodes of 5 steps, the e-th is seen as 100e, 100e + 1, … 100e + 5; rollouts of 7 steps.
    given = rollouts(lambda: limited(Walk(kind)) if flag == "truncated" else Walk(kind, 5), 3)
    obs = [rollout.obs.flatten().tolist() for rollout in given]
    next_obs = [rollout.next_obs.flatten().tolist() for rollout in given]
    assert obs == [
        [100, 101, 102, 103, 104, 200, 201],
        [202, 203, 204, 300, 301, 302, 303],
        [304, 400, 401, 402, 403, 404, 500],
    ]
    assert next_obs == [
        [101, 102, 103, 104, 105, 201, 202],
        [203, 204, 205, 301, 302, 303, 304],
        [305, 401, 402, 403, 404, 405, 501],
    ]
    ends = [getattr(rollout, flag).flatten().nonzero().flatten().tolist() for rollout in given]
    assert ends == [[4], [2], [0, 5]]
    other = "terminated" if flag == "truncated" else "truncated"
    assert not any(getattr(rollout, other).any() for rollout in given)


# ------------------------------------------------------------------ scales


@pytest.mark.parametrize("offset", [-1000, 1000])
def test_observations_far_from_0_are_told_apart_when_normalised(offset):
    # The states are 999 and 1001: their hidden units are all saturated, unless they become ±1.
    trainer = learned(
        "discrete", matches, world={"starts": (-1, 1), "offset": offset}, normalize_obs=True
    )
    assert probability_of_1(trainer, offset - 1) < 0.05
    assert probability_of_1(trainer, offset + 1) > 0.95
    valued = learned(
        "continuous",
        lambda sign, *_: sign,
        world={"starts": (-1, 1), "offset": offset},
        normalize_obs=True,
    )
    assert value(valued, offset - 1) == pytest.approx(-1, abs=0.02)
    assert value(valued, offset + 1) == pytest.approx(1, abs=0.02)


def test_values_of_normalised_rewards_are_in_units_of_their_scale():
    # Episodes of one step: the discounted sum is the reward, and the scale is the standard
    # deviation of all rewards ever paid.  V times the scale is what a step pays, 1000; the
    # scale still falls while the policy improves, and V follows.
    trainer = learned(
        "discrete",
        lambda *seen: 1000 * matches(*seen),
        world={"starts": (-1, 1)},
        normalize_rewards=True,
        **LONGER,
    )
    paid = [reward for _, reward, _ in trainer.history.episodes]
    assert len(paid) == 6400
    assert probability_of_1(trainer, -1) < 0.05
    assert probability_of_1(trainer, 1) > 0.95
    for obs in (-1, 1):
        assert value(trainer, obs) * np.std(paid) == pytest.approx(1000, rel=0.05)


def test_values_that_do_not_depend_on_actions_keep_their_scale_when_normalised():
    # ±1000 by the observation, whatever is done: V(±1) is ±1000, and the scale 1000.
    trainer = learned(
        "continuous",
        lambda sign, *_: 1000 * sign,
        world={"starts": (-1, 1)},
        normalize_rewards=True,
    )
    paid = [reward for _, reward, _ in trainer.history.episodes]
    assert np.std(paid) == pytest.approx(1000, rel=0.01)
    for obs in (-1, 1):
        assert value(trainer, obs) == pytest.approx(obs, abs=0.01)
        assert value(trainer, obs) * np.std(paid) == pytest.approx(1000 * obs, rel=0.01)


def test_a_clipped_value_arrives_too_but_in_smaller_moves():
    # The critic is w + b and starts at ±1, and 20 steps of Adam at 0.02 move it by at most
    # 20 × 2 × 0.02 = 0.8 towards the 3 that a step pays.  Clipped, the gradient is 0 after the
    # 5 steps to 0.2; the rest is Adam's momentum, which adds less than 10 such steps, 0.4.
    moves, last = {}, {}
    for clip_range in (0.2, None):
        config = dataclasses.replace(
            CONFIG,
            total_steps=16 * 24,
            num_steps=2,
            minibatch_size=16,
            num_epochs=20,
            learning_rate=0.02,
            anneal_learning_rate=False,
            value_clip_range=clip_range,
            hidden_sizes=(),
        )
        trainer = PPO(lambda: Probe("discrete", lambda *_: 3.0), config)
        values = [value(trainer, 1)]
        trainer.learn(lambda t, seen=values: seen.append(value(t, 1)))
        moves[clip_range], last[clip_range] = values[1] - values[0], values[-1]
    assert 0.2 < moves[0.2] < 0.6
    assert moves[None] == pytest.approx(0.8, abs=0.05)
    assert last == pytest.approx({0.2: 3, None: 3}, abs=0.02)
