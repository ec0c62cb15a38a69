"""Rollouts, field by field, in environments that count their steps; and evaluation."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from ppo_lib.envs import env_actions, make_envs, obs_tensor
from ppo_lib.evaluate import evaluate, play_episodes
from ppo_lib.exact.env import TabularPolicy
from ppo_lib.networks import CategoricalPolicy, GaussianPolicy, check_networks
from ppo_lib.rollout import Collector

ANY, TWO = Box(-np.inf, np.inf, (1,), np.float32), Discrete(2)


class Counter(gym.Env):
    """Observes the number of its step, pays ten times it, and ends at step ``end``.

    ``seeded``: the end is the seed instead.  ``spoilt``: (kind, step) where a NaN appears.
    """

    def __init__(self, end=5, obs=ANY, action=TWO, seeded=False, spoilt=("", -1)):
        self.observation_space, self.action_space = obs, action
        self.end, self.seeded, self.spoilt = end, seeded, spoilt
        self.given = []

    def _obs(self):
        if isinstance(self.observation_space, Discrete):
            return self.count
        number = np.nan if self.spoilt == ("obs", self.count) else self.count
        return np.full(self.observation_space.shape, number, self.observation_space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        if self.seeded and seed is not None:
            self.end = seed
        self.count = 0
        return self._obs(), {}

    def step(self, action):
        self.given.append(np.array(action))
        self.count += 1
        reward = float("nan") if self.spoilt == ("reward", self.count) else 10.0 * self.count
        return self._obs(), reward, self.count == self.end, False, {}


class Paid(Counter):
    """One step an episode, which pays the action."""

    def step(self, action):
        return self._obs(), float(np.sum(action)), True, False, {}


gym.register("tests/Counter-v0", Counter)
gym.register("tests/Paid-v0", Paid)


def vector(*envs):
    return SyncVectorEnv([lambda e=e: e for e in envs], autoreset_mode=AutoresetMode.DISABLED)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def policy():
    return CategoricalPolicy(1, 2, (4,), generator())


def two_counters():
    """One that ends at step 5, and one that a time limit cuts at step 3."""
    return vector(Counter(), TimeLimit(Counter(), 3))


# Rows are the columns of the two environments, over two rollouts of four steps.
HAND_WRITTEN = [
    {
        "obs": ([0, 1, 2, 3], [0, 1, 2, 0]),
        "next_obs": ([1, 2, 3, 4], [1, 2, 3, 1]),
        "rewards": ([10, 20, 30, 40], [10, 20, 30, 10]),
        "terminated": ([0, 0, 0, 0], [0, 0, 0, 0]),
        "truncated": ([0, 0, 0, 0], [0, 0, 1, 0]),
        "episode_returns": [60],
        "episode_lengths": [3],
    },
    {
        "obs": ([4, 0, 1, 2], [1, 2, 0, 1]),
        "next_obs": ([5, 1, 2, 3], [2, 3, 1, 2]),
        "rewards": ([50, 10, 20, 30], [20, 30, 10, 20]),
        "terminated": ([1, 0, 0, 0], [0, 0, 0, 0]),
        "truncated": ([0, 0, 0, 0], [0, 1, 0, 0]),
        "episode_returns": [150, 60],
        "episode_lengths": [5, 3],
    },
]


def test_every_field_is_what_was_written_by_hand_over_two_rollouts():
    collector = Collector(two_counters(), seed=0)
    draws = generator()
    for expected in HAND_WRITTEN:
        rollout = collector.collect(policy(), 4, draws)
        for name, columns in expected.items():
            found = getattr(rollout, name)
            if not name.startswith("episode"):
                columns = [[int(x) for x in column] for column in columns]
                found = found.reshape(4, 2).T
            assert found.tolist() == [*columns], name


def test_a_step_may_be_both_termination_and_time_limit():
    rollout = Collector(vector(TimeLimit(Counter(3), 3)), seed=0).collect(policy(), 4, generator())
    assert rollout.terminated[:, 0].tolist() == [False, False, True, False]
    assert rollout.truncated[:, 0].tolist() == [False, False, True, False]
    assert rollout.episode_lengths.tolist() == [3]


def test_shapes_and_dtypes_are_as_documented():
    rollout = Collector(two_counters(), seed=0).collect(policy(), 6, generator())
    flag, real, whole = torch.bool, torch.float32, torch.int64
    expected = {
        "obs": ((6, 2, 1), real),
        "actions": ((6, 2), whole),
        "log_probs": ((6, 2), real),
        "dist_params": ((6, 2, 2), real),
        "rewards": ((6, 2), real),
        "next_obs": ((6, 2, 1), real),
        "terminated": ((6, 2), flag),
        "truncated": ((6, 2), flag),
        "mask": ((6, 2), flag),
        "episode_returns": ((3,), torch.float64),
        "episode_lengths": ((3,), whole),
    }
    found = {name: (tuple(x.shape), x.dtype) for name, x in rollout._asdict().items()}
    assert found == expected
    assert not any(x.requires_grad for x in rollout)
    # And where nothing has ended.
    rollout = Collector(two_counters(), seed=0).collect(policy(), 1, generator())
    assert (rollout.episode_returns.dtype, rollout.episode_lengths.dtype) == (torch.float64, whole)


def test_lengths_of_running_episodes_are_integers():
    collector = Collector(two_counters(), seed=0)
    collector.collect(policy(), 4, generator())
    assert collector.lengths.dtype == np.int64
    assert collector.lengths.tolist() == [4, 1]
    assert collector.returns.tolist() == [100, 10]


def test_without_an_ending_there_are_no_episodes():
    rollout = Collector(two_counters(), seed=0).collect(policy(), 2, generator())
    assert rollout.episode_returns.tolist() == rollout.episode_lengths.tolist() == []


def test_log_probs_are_those_of_the_stored_parameters_which_are_those_of_the_policy():
    actor = policy()
    with torch.no_grad():
        actor.net[-1].bias += torch.tensor([0.7, -0.7])
    rollout = Collector(two_counters(), seed=0).collect(actor, 20, generator())
    expected = torch.distributions.Categorical(logits=rollout.dist_params)
    torch.testing.assert_close(rollout.log_probs, expected.log_prob(rollout.actions))
    torch.testing.assert_close(rollout.dist_params, actor(rollout.obs).detach())
    assert set(rollout.actions.flatten().tolist()) == {0, 1}


def test_actions_are_stored_as_drawn_and_clipped_only_on_their_way_to_the_environment():
    bounds = Box(np.array([-0.1, -2.0], np.float32), np.array([0.3, 2.0], np.float32))
    envs = vector(Counter(action=bounds), Counter(action=bounds))
    actor = GaussianPolicy(1, 2, (4,), generator())
    rollout = Collector(envs, seed=0).collect(actor, 30, generator())
    given = np.stack([env.unwrapped.given for env in envs.envs], axis=1)
    low, high = torch.tensor(bounds.low), torch.tensor(bounds.high)
    drawn = rollout.actions
    assert (drawn < low).any()
    assert (drawn > high).any()
    assert np.array_equal(given, torch.minimum(torch.maximum(drawn, low), high).numpy())
    mean, log_std = rollout.dist_params.chunk(2, -1)
    density = torch.distributions.Normal(mean, log_std.exp()).log_prob(drawn).sum(-1)
    torch.testing.assert_close(rollout.log_probs, density)


def test_discrete_actions_reach_the_environment_as_drawn():
    envs = two_counters()
    rollout = Collector(envs, seed=0).collect(policy(), 30, generator())
    given = np.stack([env.unwrapped.given for env in envs.envs], axis=1)
    assert np.array_equal(given, rollout.actions.numpy())


def test_the_same_seeds_give_the_same_rollout_whatever_the_global_generators_do():
    def collect():
        return Collector(two_counters(), seed=0).collect(policy(), 20, generator(4))

    first = collect()
    torch.manual_seed(99)
    np.random.default_rng(99)
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(first, collect(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_each_environment_gets_a_seed_of_its_own():
    envs = vector(*(gym.make("CartPole-v1") for _ in range(3)))
    actor = CategoricalPolicy(4, 2, (4,), generator())
    first = Collector(envs, seed=7).collect(actor, 1, generator()).obs[0]
    for i in range(3):
        alone, _ = gym.make("CartPole-v1").reset(seed=7 + i)
        assert first[i].tolist() == alone.tolist()


def test_states_by_number_stay_integers_and_integer_features_become_floats():
    assert obs_tensor(np.array([3, 5])).dtype == torch.int64
    found = obs_tensor(np.array([[3, 5]], dtype=np.uint8))
    assert found.dtype == torch.float32
    assert found.tolist() == [[3.0, 5.0]]


def test_observations_are_copied():
    array = np.zeros((2, 3), dtype=np.float32)
    found = obs_tensor(array)
    array[:] = 7
    assert not found.any()


def test_a_tabular_policy_is_collected_in_an_environment_of_numbered_states():
    rollout = Collector(vector(Counter(obs=Discrete(6))), seed=0).collect(
        TabularPolicy(6, 2), 7, generator()
    )
    assert rollout.obs.dtype == torch.int64
    assert rollout.obs[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert rollout.next_obs[:, 0].tolist() == [1, 2, 3, 4, 5, 1, 2]


# ------------------------------------------------------------------ resets


def test_environments_that_reset_at_the_next_step_take_no_step_in_it():
    envs = SyncVectorEnv([Counter, lambda: TimeLimit(Counter(), 3)])
    collector = Collector(envs, seed=0)
    first, second = (collector.collect(policy(), n, generator()) for n in (6, 5))
    assert [len(env.unwrapped.given) for env in envs.envs] == [10, 9]
    # Ends at step 5, or is cut at step 3; then comes a row in which nothing is stepped.
    assert first.mask.T.tolist() == [[True] * 5 + [False], [True] * 3 + [False] + [True] * 2]
    assert second.mask.T.tolist() == [[True] * 5, [True, False, True, True, True]]
    assert first.next_obs[..., 0].T.tolist() == [[1, 2, 3, 4, 5, 0], [1, 2, 3, 0, 1, 2]]
    assert first.obs[..., 0].T.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 0, 1]]
    assert first.terminated.T.nonzero().tolist() == [[0, 4]]
    assert first.truncated.T.nonzero().tolist() == [[1, 2]]
    assert first.episode_returns.tolist() == [60, 150]
    assert first.episode_lengths.tolist() == [3, 5]
    assert second.episode_returns.tolist() == [60, 150, 60]
    assert second.episode_lengths.tolist() == [3, 5, 3]


def test_cartpole_over_arrays_ends_where_single_cartpoles_end():
    envs = make_envs("CartPole-v1", 4, vectorization="array", env_kwargs={"max_episode_steps": 30})
    actor = CategoricalPolicy(4, 2, (4,), generator())
    rollout = Collector(envs, seed=0).collect(actor, 120, generator())
    died, cut = rollout.terminated, rollout.truncated
    assert died.any()
    assert cut.any()
    lengths = []
    for n in range(4):
        single = None
        for t in range(120):
            obs, next_obs = rollout.obs[t, n].numpy(), rollout.next_obs[t, n].numpy()
            if not rollout.mask[t, n]:
                # The step after an end, and nothing else: from the last state to a first one.
                assert died[t - 1, n] or cut[t - 1, n]
                assert np.abs(next_obs).max() <= 0.05
                assert not (died[t, n])
                assert not (cut[t, n])
                assert not (rollout.rewards[t, n])
                single = None
                continue
            if single is None:
                single, steps = gym.make("CartPole-v1").unwrapped, 0
                single.reset()
                single.state = obs.astype(np.float64)
            seen, reward, terminated, _, _ = single.step(int(rollout.actions[t, n]))
            steps += 1
            np.testing.assert_allclose(seen, next_obs, atol=1e-5)
            assert reward == rollout.rewards[t, n] == 1
            assert terminated == died[t, n]
            assert (steps == 30) == cut[t, n]
            if terminated or steps == 30:
                lengths.append(steps)
    assert sorted(lengths) == sorted(rollout.episode_lengths.tolist())
    assert rollout.episode_returns.tolist() == rollout.episode_lengths.tolist()


class Reusing(gym.vector.VectorWrapper):
    """Writes what a step gives into the arrays of the step before."""

    arrays = None

    def step(self, actions):
        *given, info = super().step(actions)
        if self.arrays is None:
            self.arrays = [array.copy() for array in given]
        for kept, array in zip(self.arrays, given, strict=True):
            kept[:] = array
        return *self.arrays, info


def test_an_environment_may_write_into_the_same_arrays_again():
    one, other = (Collector(e, seed=0) for e in (two_counters(), Reusing(two_counters())))
    for a, b in zip(*(c.collect(policy(), 8, generator()) for c in (one, other)), strict=True):
        assert torch.equal(a, b)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (("obs", 2), r"observation is \[\[nan\]\], expected finite"),
        (("reward", 2), r"reward is \[nan\], expected finite"),
        (("reward", 5), r"reward is \[nan\], expected finite"),
    ],
)
def test_a_nan_from_the_environment_is_refused_by_name(spoilt, message):
    collector = Collector(vector(Counter(spoilt=spoilt)), seed=0)
    with pytest.raises(ValueError, match=message):
        collector.collect(policy(), 6, generator())
    with pytest.raises(ValueError, match=message):
        play_episodes(vector(Counter(spoilt=spoilt)), policy(), generator(), seed=0)


def test_a_policy_that_gives_no_numbers_is_refused():
    # A categorical one draws some action all the same, and the environment takes it.
    actor = policy()
    with torch.no_grad():
        actor.net[-1].bias += torch.nan
    message = r"(?s)dist_params is .*nan.*, expected finite"
    with pytest.raises(ValueError, match=message):
        Collector(two_counters(), seed=0).collect(actor, 2, generator())
    for draws in (generator(), None):
        with pytest.raises(ValueError, match=message):
            play_episodes(two_counters(), actor, draws, seed=0)


def test_a_policy_one_of_whose_numbers_is_none_is_refused_before_it_acts():
    actor = GaussianPolicy(1, 2, (4,), generator())
    with torch.no_grad():
        actor.net[-1].bias[1] = torch.nan  # the first number of an action is one
    critic = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Flatten(0))
    with pytest.raises(ValueError, match=r"(?s)dist_params is .*nan.*, expected finite"):
        check_networks(actor, critic, torch.zeros(3, 1), Box(-1, 1, (2,)), normalize_obs=False)


def test_a_nan_is_refused_at_its_step_also_if_another_environment_pays_a_number():
    envs = vector(Counter(spoilt=("reward", 2)), Counter())
    with pytest.raises(ValueError, match=r"reward is \[nan 20\.\], expected finite"):
        Collector(envs, seed=0).collect(policy(), 6, generator())
    assert [len(env.unwrapped.given) for env in envs.envs] == [2, 2]


def test_a_policy_that_gives_no_numbers_is_named_and_not_the_reward_that_follows_from_it():
    actor = GaussianPolicy(1, 1, (4,), generator())
    with torch.no_grad():
        actor.net[-1].bias += torch.nan
    envs = vector(Paid(action=Box(-1, 1, (1,))))
    with pytest.raises(ValueError, match=r"(?s)dist_params is .*nan.*, expected finite"):
        Collector(envs, seed=0).collect(actor, 2, generator())


def test_a_nan_in_the_first_observation_is_refused():
    with pytest.raises(ValueError, match=r"observation is .*nan.*, expected finite"):
        Collector(vector(Counter(spoilt=("obs", 0))), seed=0)


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ({"obs": MultiDiscrete([2, 3])}, r"observation_space is MultiDiscrete.*FlattenObservation"),
        ({"obs": Dict({"x": ANY})}, r"observation_space is Dict.*expected a Box .*Flatten"),
        ({"obs": MultiBinary(3)}, "observation_space is MultiBinary"),
        (
            {"obs": Box(-1, 1, ())},
            r"observation_space is Box.*\(\), .* expected a Box of at least one dim",
        ),
        ({"obs": Discrete(3, start=1)}, r"observation_space is Discrete\(3, start=1\)"),
        (
            {"action": MultiDiscrete([[2, 3]])},
            "action_space is MultiDiscrete.*expected a Disc",
        ),
        ({"action": MultiDiscrete([2, 3], start=[0, 1])}, "action_space is MultiDiscrete.*from 0"),
        ({"action": Dict({"x": ANY})}, "action_space is Dict"),
        ({"action": Box(-1, 1, (2, 3))}, r"action_space is Box.*\(2, 3\)"),
        ({"action": Discrete(3, start=1)}, r"action_space is Discrete\(3, start=1\)"),
    ],
)
def test_spaces_that_no_policy_takes_are_refused(spaces, message):
    with pytest.raises(ValueError, match=message):
        Collector(vector(Counter(**spaces)), seed=0)
    with pytest.raises(ValueError, match=message):
        play_episodes(vector(Counter(**spaces)), policy(), seed=0)


def test_environments_that_hide_what_a_step_led_to_are_refused():
    envs = SyncVectorEnv([Counter], autoreset_mode=AutoresetMode.SAME_STEP)
    message = r"autoreset_mode AutoresetMode.SAME_STEP, expected .*DISABLED or NEXT_STEP"
    with pytest.raises(ValueError, match=message):
        Collector(envs, seed=0)
    with pytest.raises(ValueError, match=message):
        play_episodes(envs, policy(), seed=0)


@pytest.mark.parametrize("num_steps", [0, -1])
def test_a_rollout_of_no_steps_is_refused(num_steps):
    with pytest.raises(ValueError, match=f"num_steps is {num_steps}, expected at least 1"):
        Collector(two_counters(), seed=0).collect(policy(), num_steps, generator())


def test_actions_without_bounds_are_not_clipped():
    actions = torch.tensor([[1e6], [-1e6]])
    assert env_actions(actions, vector(Counter(action=ANY))).tolist() == [[1e6], [-1e6]]


# ------------------------------------------------------------------ whole episodes


def test_episodes_are_played_once_each_and_padded():
    envs = two_counters()
    episodes = play_episodes(envs, policy(), generator(), seed=0)
    assert episodes.rewards.T.tolist() == [[10, 20, 30, 40, 50], [10, 20, 30, 0, 0]]
    assert episodes.mask.T.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert (episodes.rewards.dtype, episodes.mask.dtype) == (torch.float64, torch.bool)
    assert episodes.obs[..., 0].T[0].tolist() == [0, 1, 2, 3, 4]
    assert episodes.obs[..., 0].T[1].tolist() == [0, 1, 2, 0, 0]
    # And no environment takes a step after its end.
    given = [[int(action) for action in env.unwrapped.given] for env in envs.envs]
    assert [len(actions) for actions in given] == [5, 3]
    assert episodes.actions.T.tolist() == [given[0], [*given[1], 0, 0]]


def test_evaluation_counts_exactly_one_episode_of_each_environment():
    # Environment i ends at step seed + i and pays 10, 20, …: 10, 30, 60, 100 and 150 for 1 to 5.
    found = evaluate(
        policy(), "tests/Counter-v0", num_episodes=5, seed=1, env_kwargs={"seeded": True}
    )
    assert found.dtype == torch.float64
    assert found.tolist() == [10, 30, 60, 100, 150]


def test_evaluation_takes_the_likeliest_action_or_draws_one():
    actor = TabularPolicy(1, 2)
    with torch.no_grad():
        # Action 1 with probability 0.6.
        actor.logits[0] = torch.tensor([0.4, 0.6]).log()
    spaces = {"env_kwargs": {"obs": Discrete(1)}, "num_episodes": 400, "seed": 3}
    assert evaluate(actor, "tests/Paid-v0", **spaces).tolist() == [1.0] * 400
    drawn = evaluate(actor, "tests/Paid-v0", deterministic=False, **spaces)
    # Five standard errors: 5 √(0.6 · 0.4 / 400) = 0.12.
    assert abs(drawn.mean() - 0.6) < 0.12
    assert torch.equal(drawn, evaluate(actor, "tests/Paid-v0", deterministic=False, **spaces))
    spaces["seed"] = 4
    assert not torch.equal(drawn, evaluate(actor, "tests/Paid-v0", deterministic=False, **spaces))


def test_one_seed_gives_the_same_evaluation():
    actor = CategoricalPolicy(4, 2, (8,), generator())
    first, same, other = (
        evaluate(actor, "CartPole-v1", num_episodes=4, seed=seed) for seed in (5, 5, 6)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_evaluation_leaves_the_global_generator_and_the_policy_alone():
    actor = policy()
    before = [torch.get_rng_state(), *(p.clone() for p in actor.parameters())]
    evaluate(actor, "tests/Counter-v0", num_episodes=2, seed=0, deterministic=False)
    after = [torch.get_rng_state(), *actor.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("num_episodes", [0, -1])
def test_an_evaluation_of_no_episodes_is_refused(num_episodes):
    message = f"num_episodes is {num_episodes}, expected at least 1"
    with pytest.raises(ValueError, match=message):
        evaluate(policy(), "tests/Counter-v0", num_episodes=num_episodes, seed=0)


def test_no_step_is_taken_in_an_episode_that_is_over():
    counters = [Counter(end) for end in (2, 7, 1, 5)]
    evaluated = iter(counters)
    found = evaluate(policy(), lambda: next(evaluated), num_episodes=4, seed=0)
    assert found.tolist() == [30, 280, 10, 150]
    assert [len(counter.given) for counter in counters] == [2, 7, 1, 5]
