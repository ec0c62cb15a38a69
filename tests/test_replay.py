"""Episodes that are played again: whatever then differs is noticed."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from ppo_lib import replay
from ppo_lib.distributions import Categorical
from ppo_lib.envs import make_envs
from ppo_lib.policies import Policy
from ppo_lib.replay import Log
from ppo_lib.rollout import Collector


class Walk(gym.Env):
    """Observes the sum of its actions, which each step pays; its random numbers show nowhere."""

    observation_space, action_space = Box(-99, 99, (1,)), Discrete(9)
    extra, ends_at, cut_at = 0, 99, 99

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.np_random.random(1 + self.extra)
        self.place, self.steps = 0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.place, self.steps = self.place + int(action), self.steps + 1
        ends, cut = self.steps >= self.ends_at, self.steps >= self.cut_at
        return np.array([self.place], np.float32), float(self.place), ends, cut, {}


def test_environments_begin_with_seeds_one_after_the_other():
    log = Log(make_envs(Walk, 3))
    log.begin(seed=7)
    assert log.state_dict()["starts"] == [7, 8, 9]


@pytest.fixture
def three():
    """Environments after three steps, the second reset after the first of them; and their log."""
    envs = make_envs(Walk, 2)
    log = Log(envs)
    log.begin(seed=7)
    envs.reset(seed=7)
    for step, actions in enumerate(([1, 2], [3, 4], [5, 6])):
        if step == 1:
            log.begin(np.array([False, True]))
            envs.reset(options={"reset_mask": np.array([False, True])})
        log.add(np.array(actions))
        envs.step(np.array(actions))
    return log


def test_what_is_kept_of_running_episodes_is_their_start_and_their_actions(three):
    state = three.state_dict()
    assert state["starts"][0] == 7
    drawn = np.random.default_rng(8)
    drawn.random(1)
    assert state["starts"][1] == drawn.bit_generator.state
    assert (state["first"], state["actions"].tolist()) == ([0, 1], [[1, 2], [3, 4], [5, 6]])


def test_episodes_are_played_again_from_their_own_first_action(three):
    state = three.state_dict()
    obs, paid = Log(make_envs(Walk, 2)).play(state)
    # 1, 1 + 3 and 1 + 3 + 5; then 4 and 4 + 6.
    assert obs.tolist() == [[9], [10]]
    assert paid == [14, 14]
    again = Log(make_envs(Walk, 2))
    again.play(state)
    after = again.state_dict()
    assert after["actions"].tolist() == state["actions"].tolist()
    assert {k: after[k] for k in ("starts", "first", "random")} == {
        k: state[k] for k in ("starts", "first", "random")
    }


def test_a_reset_is_played_again_as_it_was_given(three):
    given, envs = [], make_envs(Walk, 2)
    for env in envs.envs:
        env.reset = lambda reset=env.reset, **how: given.append(how) or reset(**how)
    Log(envs).play(three.state_dict())
    # By a seed; and by a vector that has taken its mask out of the options.
    assert given == [{"seed": 7}, {"options": {}}]


@pytest.mark.parametrize("change", [{"extra": 1}, {"ends_at": 2}, {"cut_at": 2}, {"ends_at": 3}])
def test_an_environment_that_draws_otherwise_or_ends_too_soon_plays_otherwise(change, three):
    # Where the length of the second episode is 2, an end at 3 is noticed in the first alone.
    state = three.state_dict()
    other = type("Other", (Walk,), change)
    assert Log(make_envs(other, 2)).play(state) is None


def test_a_collector_keeps_what_its_environments_were_given():
    class Any(Policy):
        dist = Categorical

        def forward(self, obs):
            return obs.new_zeros(len(obs), 9)

    collector = Collector(make_envs(Walk, 2), seed=5)
    assert collector.log.state_dict()["starts"] == [5, 6]
    rollout = collector.collect(Any(), 4, torch.Generator().manual_seed(0))
    assert torch.equal(collector.log.state_dict()["actions"], rollout.actions)


def test_steps_that_no_running_episode_needs_are_forgotten(three):
    three.begin(np.array([True, False]))
    state = three.state_dict()
    assert (state["first"], state["actions"].tolist()) == ([2, 0], [[3, 4], [5, 6]])


def test_the_actions_kept_are_copies(three):
    actions = np.array([7, 8])
    three.add(actions)
    actions[:] = 0
    assert three.state_dict()["actions"][-1].tolist() == [7, 8]


def test_what_does_not_show_how_it_is_stepped_is_refused_and_nothing_kept():
    envs = gym.vector.SyncVectorEnv([Walk] * 2)  # resets at the next step
    log = Log(envs)
    assert log.refusal == "SyncVectorEnv does not show what goes on in it"
    log.begin(seed=0)
    log.add(np.array([1, 2]))
    assert log.state_dict() is None
    envs = make_envs(Walk, 2, vectorization="async")
    try:
        assert Log(envs).refusal == "AsyncVectorEnv does not show what goes on in it"
    finally:
        envs.close()


def test_an_episode_may_be_as_long_as_is_kept_and_no_longer(three, monkeypatch):
    assert replay.MAX_STEPS == 100_000
    monkeypatch.setattr(replay, "MAX_STEPS", 4)
    for number in (4, 5, 6):
        three.add(np.array([0, 0]))
        assert (three.state_dict() is None) == (number > 4)
    assert three.refusal == "an episode has more than 4 steps"


def test_random_numbers_of_another_kind_are_no_plain_data():
    old = type("Old", (Walk,), {"np_random": np.random.RandomState(0)})
    log = Log(make_envs(old, 2))
    log.begin(seed=1)
    assert log.refusal == ""
    log.begin(np.array([True, False]))  # goes on by its own numbers
    assert log.refusal == "the environment's np_random is not gymnasium's"
    assert log.state_dict() is None


def test_episodes_of_arrays_fit_arrays_alone(three):
    arrays = Log(make_envs("CartPole-v1", 2, vectorization="array"))
    arrays.envs.reset(seed=0)
    states = three.state_dict(), arrays.state_dict()
    assert [three.fits(state) for state in states] == [True, False]
    assert [arrays.fits(state) for state in states] == [False, True]


def test_arrays_that_were_taken_up_stay_as_they_are_kept():
    log = Log(make_envs("CartPole-v1", 2, vectorization="array"))
    log.envs.reset(seed=0)
    state = log.state_dict()
    kept = {name: x.clone() for name, x in state["arrays"].items()}
    log.play(state)
    log.envs.step(np.array([0, 1]))
    assert all(torch.equal(x, kept[name]) for name, x in state["arrays"].items())
