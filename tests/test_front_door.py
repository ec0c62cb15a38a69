"""The front door: environments and networks of one's own, and a policy that acts alone."""

import copy
import dataclasses
import pickle
import warnings
from statistics import NormalDist

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, TimeLimit
from torch import nn

from ppo_lib import PPO, Policy, PPOConfig, evaluate, load_policy, settings
from ppo_lib.distributions import Categorical, DiagonalGaussian, MultiCategorical
from ppo_lib.envs import make_envs
from ppo_lib.evaluate import play_episodes
from ppo_lib.exact.env import TabularPolicy
from ppo_lib.networks import CategoricalPolicy, GaussianPolicy, make_networks
from ppo_lib.normalizers import ObsNormalizer

SMALL = PPOConfig(
    total_steps=96, num_envs=4, num_steps=8, minibatch_size=8, num_epochs=2, hidden_sizes=(8,)
)


class Count(gym.Env):
    """Observes the number of its step; a step pays 1, and the third one ends the world."""

    observation_space, action_space = Box(0, 9, (1,)), Discrete(2)

    def __init__(self, dies=True):
        self.dies = dies
        self.steps, self.closed = 0, False

    def _obs(self):
        return np.array([self.count], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.count = 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.count, self.steps = self.count + 1, self.steps + 1
        return self._obs(), 1.0, self.dies and self.count == 3, False, {}

    def close(self):
        self.closed = True


class Watched(PPO):
    """Keeps the minibatches that it learns from."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.minibatches = []

    def gradient(self, minibatch):
        self.minibatches.append(minibatch)
        return super().gradient(minibatch)


class Linear(nn.Module):
    """V(s) = s + 1 at first."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, obs):
        return self.slope * obs[..., 0] + 1


def equal_agents(first, second):
    pairs = zip(first.parameters, second.parameters, strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# ------------------------------------------------------------------ environments


def test_an_id_a_callable_and_a_vector_environment_train_the_same_agent():
    def make():
        return gym.make("CartPole-v1")

    disabled = {"autoreset_mode": AutoresetMode.DISABLED}
    given = ["CartPole-v1", make, SyncVectorEnv([make] * 4, **disabled)]
    trainers = [PPO(env, SMALL) for env in given]
    for trainer in trainers:
        trainer.learn()
    assert equal_agents(trainers[0], trainers[1])
    assert equal_agents(trainers[0], trainers[2])
    episodes = trainers[0].history.episodes
    assert episodes == trainers[1].history.episodes == trainers[2].history.episodes


def test_without_numbers_an_id_gets_its_settings_and_others_the_defaults():
    assert PPO("CartPole-v1").config == settings("CartPole-v1") != PPOConfig()
    assert PPO("Acrobot-v1").config == PPOConfig()
    assert PPO(lambda: gym.make("CartPole-v1")).config == PPOConfig()
    # A wrapper can't be put round an environment over arrays.
    wrapped = PPO("CartPole-v1", wrappers=[FlattenObservation]).config
    assert wrapped == dataclasses.replace(settings("CartPole-v1"), vectorization="sync")


@pytest.mark.parametrize("more", [{"wrappers": [FlattenObservation]}, {"env_kwargs": {"g": 9.0}}])
def test_what_a_vector_environment_would_not_hear_of_is_refused(more):
    envs = SyncVectorEnv([Count] * 4)
    with pytest.raises(ValueError, match=r"^(wrappers|env_kwargs) is .*, expected none with a vec"):
        PPO(envs, SMALL, **more)


def test_a_vector_environment_has_the_copies_that_the_configuration_says():
    with pytest.raises(ValueError, match="env has 3 copies, expected num_envs = 4"):
        PPO(SyncVectorEnv([Count] * 3), SMALL)


def test_evaluation_makes_its_own_environments():
    with pytest.raises(ValueError, match=r"env is SyncVectorEnv.*, expected an id or a callable"):
        evaluate(PPO("CartPole-v1").policy, SyncVectorEnv([Count] * 20), seed=0)


def test_arguments_reach_an_environment_by_its_id():
    trainer = PPO("Pendulum-v1", SMALL, env_kwargs={"g": 2.5})
    assert [env.unwrapped.g for env in trainer.envs.envs] == [2.5] * 4
    with pytest.raises(ValueError, match=r"env_kwargs is \{'g': 1\}, expected none with"):
        PPO(Count, SMALL, env_kwargs={"g": 1})


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("dies", [True, False])
def test_resets_of_gymnasiums_own_vectors_are_never_learned_from(dies, wrapped):
    # Rows 0, 1, 2 are an episode, row 3 is the reset, and so on.
    def make():
        return Count() if dies else TimeLimit(Count(dies=False), 3)

    envs = SyncVectorEnv([make] * 2)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    counters = [env.unwrapped for env in envs.envs]
    config = dataclasses.replace(
        SMALL,
        num_envs=2,
        total_steps=16,
        minibatch_size=16,
        num_epochs=1,
        gamma=0.5,
        gae_lambda=1.0,
        normalize_advantages=False,
    )
    given = gym.wrappers.vector.RecordEpisodeStatistics(envs) if wrapped else envs
    trainer = Watched(given, config, critic=Linear())
    trainer.learn()
    (batch,) = trainer.minibatches
    # Two copies, two episodes each, of three steps: 12 rows of 16, and 12 steps were taken.
    assert sorted(batch.obs.flatten().tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    assert sum(counter.steps for counter in counters) == 12
    # What followed: rewards to the end, and where time was up also γ^k V(3) = γ^k 4.
    rest = 0 if dies else 4
    returns = {2: 1 + 0.5 * rest, 1: 1.5 + 0.25 * rest, 0: 1.75 + 0.125 * rest}
    for obs, value, advantage, target in zip(
        batch.obs.flatten().tolist(), batch.values, batch.advantages, batch.returns, strict=True
    ):
        assert value == obs + 1
        assert target == pytest.approx(returns[obs])
        assert advantage == pytest.approx(returns[obs] - (obs + 1), abs=1e-6)
    assert trainer.history.episodes == [(16, 3.0, 3)] * 4
    assert trainer.env_steps == 16


def test_a_reset_at_the_edge_of_two_rollouts_is_not_learned_from():
    config = dataclasses.replace(SMALL, num_steps=3, num_envs=1, total_steps=12, minibatch_size=3)
    trainer = Watched(SyncVectorEnv([Count]), dataclasses.replace(config, num_epochs=1))
    trainer.learn()
    seen = [sorted(mb.obs.flatten().tolist()) for mb in trainer.minibatches]
    # Steps and resets: 0 1 2 | r 0 1 | 2 r 0 | 1 2 r.
    assert seen == [[0, 1, 2], [0, 1], [0, 2], [1, 2]]
    assert trainer.history.episodes == [(3, 3.0, 3), (9, 3.0, 3), (12, 3.0, 3)]


def test_cartpole_over_arrays_learns_from_every_step_and_from_no_reset():
    config = dataclasses.replace(
        SMALL, num_steps=100, total_steps=400, minibatch_size=400, num_epochs=1
    )
    config = dataclasses.replace(config, vectorization="array")
    trainer = Watched("CartPole-v1", config)
    rollout = trainer.collect()
    trainer.update(rollout)
    (batch,) = trainer.minibatches
    ended = rollout.terminated | rollout.truncated
    assert ended[:-1].any()
    # A row after an end is a reset, and nothing else is.
    assert torch.equal(rollout.mask[1:], ~ended[:-1])
    assert rollout.mask[0].all()
    assert len(batch.obs) == rollout.mask.sum() == 400 - ended[:-1].sum()
    # Every observation has its own numbers: those of resets are the last states of episodes.
    learned = {tuple(obs) for obs in batch.obs.tolist()}
    last = {tuple(obs) for obs in rollout.next_obs[ended].tolist()}
    assert not learned & last
    assert learned == {tuple(obs) for obs in rollout.obs[rollout.mask].tolist()}


def test_resets_are_not_counted_in_the_statistics_of_observations():
    config = dataclasses.replace(SMALL, num_envs=1, num_steps=8, total_steps=8, normalize_obs=True)
    trainer = PPO(SyncVectorEnv([Count]), config)
    trainer.learn()
    # The first 0, and then 0 1 2 r 0 1 2 r, where at r still 3 is seen.
    normalizer = trainer.policy.net[0]
    assert normalizer.count.item() == 7
    assert normalizer.mean.item() == pytest.approx(6 / 7)


def test_environments_in_processes_of_their_own_train_the_same_agent():
    config = dataclasses.replace(SMALL, num_envs=2, num_steps=16)
    with (
        PPO("CartPole-v1", config) as alone,
        PPO("CartPole-v1", dataclasses.replace(config, vectorization="async")) as trainer,
    ):
        assert type(trainer.envs) is AsyncVectorEnv
        processes = trainer.envs.processes
        alone.learn()
        trainer.learn()
        assert equal_agents(alone, trainer)
        assert alone.history.episodes == trainer.history.episodes != []
    assert len(processes) == 2
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("env", [lambda: gym.make("CartPole-v1"), "Pendulum-v1"])
def test_where_there_is_no_environment_over_arrays_that_is_said(env):
    with pytest.raises(ValueError, match="vectorization is 'array', expected 'sync' or 'async'"):
        PPO(env, dataclasses.replace(SMALL, vectorization="array"))


def test_leaving_closes_the_environments_also_after_an_error():
    trainer = PPO(Count, SMALL)
    counters = trainer.envs.envs
    with pytest.raises(KeyError), trainer:
        trainer.learn(lambda _: {}["nothing"])
    assert all(counter.closed for counter in counters)
    trainer.close()  # once more does no harm
    other = PPO(Count, SMALL)
    other.close()
    assert all(counter.closed for counter in other.envs.envs)


# ------------------------------------------------------------------ networks


class Pixels(gym.Env):
    """An image of 3 x 3; action 1 pays where its middle is bright."""

    observation_space, action_space = Box(0, 255, (1, 3, 3), np.uint8), gym.spaces.Discrete(2)

    def _show(self):
        self.bright = bool(self.np_random.integers(2))
        return np.full((1, 3, 3), 200 if self.bright else 20, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return self._show(), {}

    def step(self, action):
        paid = float((action == 1) == self.bright)
        return self._show(), paid, True, False, {}


class Convolution(Policy):
    """Logits of what a picture shows."""

    dist = Categorical

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(-3), nn.Linear(8, 2))

    def forward(self, obs):
        images = (obs / 255).reshape(-1, 1, 3, 3)
        return self.net(images).reshape(*obs.shape[:-3], 2)


class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(9, 1)

    def forward(self, obs):
        return self.layer(obs.flatten(-3) / 255).squeeze(-1)


def test_networks_of_ones_own_learn_from_images_and_are_loaded(tmp_path):
    torch.manual_seed(0)
    config = dataclasses.replace(
        SMALL, total_steps=9600, num_steps=32, minibatch_size=32, learning_rate=2e-2, gamma=0.0
    )
    trainer = PPO(Pixels, config, policy=Convolution(), critic=Bright())
    trainer.learn()
    assert trainer.history.recent_return(200) > 0.95
    bright, dark = (np.full((1, 3, 3), x, np.uint8) for x in (200, 20))
    assert trainer.policy.act(bright) == 1
    assert trainer.policy.act(bright).shape == ()
    assert trainer.policy.act(np.stack([dark, bright, dark])).tolist() == [0, 1, 0]
    trainer.save(tmp_path / "agent.pt")
    policy = load_policy(tmp_path / "agent.pt", Convolution())
    assert policy.act(np.stack([dark, bright, dark])).tolist() == [0, 1, 0]
    assert evaluate(policy, Pixels, num_episodes=5, seed=0).tolist() == [1] * 5
    with pytest.raises(ValueError, match=r"observation_space is Box.*or networks of your own"):
        PPO(Pixels, SMALL, policy=policy)


def test_a_table_learns_in_states_by_number():
    trainer = PPO(
        "ppo_lib/Ridge-v0",
        SMALL,
        policy=TabularPolicy(14, 3, torch.float32),
        critic=nn.Sequential(nn.Embedding(14, 1), nn.Flatten(-2)),
    )
    before = trainer.policy.logits.detach().clone()
    trainer.learn()
    assert not torch.equal(trainer.policy.logits, before)
    assert trainer.policy.act(0) in (0, 1, 2)


def test_one_network_may_be_given_and_the_other_is_made():
    torch.manual_seed(0)
    trainer = PPO("CartPole-v1", SMALL, critic=nn.Sequential(nn.Linear(4, 1), nn.Flatten(-2)))
    assert isinstance(trainer.policy, CategoricalPolicy)
    policy = CategoricalPolicy(4, 2, (5,), torch.Generator().manual_seed(0))
    assert PPO("CartPole-v1", SMALL, policy=policy).policy is policy


@pytest.mark.parametrize("given", ["policy", "critic", "both"])
def test_normalised_observations_want_a_normaliser_in_networks_of_ones_own(given):
    # Otherwise one of the two, or both, would see them raw without a word.
    policy = CategoricalPolicy(4, 2, (8,), torch.Generator().manual_seed(0))
    critic = nn.Sequential(nn.Linear(4, 1), nn.Flatten(-2))
    networks = {"policy": policy, "critic": critic}
    own = networks if given == "both" else {given: networks[given]}
    config = dataclasses.replace(SMALL, normalize_obs=True)
    message = r"^normalize_obs is True, expected False with a (policy|critic) of your own that hold"
    with pytest.raises(ValueError, match=message):
        PPO("CartPole-v1", config, **own)
    policy.net = nn.Sequential(ObsNormalizer(4), policy.net)
    critic = nn.Sequential(policy.net[0], critic)
    trainer = PPO("CartPole-v1", config, policy=policy, critic=critic)
    trainer.learn()
    # Four first observations, and then each step's once, though both networks hold it.
    assert policy.net[0].count.item() == 4 + 96


# ------------------------------------------------------------------ acting


def untrained(env_id):
    """A policy with weights that do not stay near 0, and some observations."""
    with PPO(env_id, SMALL) as trainer:
        obs = np.stack([trainer.envs.single_observation_space.sample() for _ in range(20)])
        with torch.no_grad():
            trainer.policy.net[-1].weight.mul_(3000)
    return trainer.policy, np.clip(obs, -5, 5).astype(np.float32)


def test_the_most_probable_action_of_one_observation_and_of_a_batch():
    policy, obs = untrained("CartPole-v1")
    logits = policy(torch.tensor(obs)).detach().numpy()
    batch = policy.act(obs)
    assert batch.dtype == np.int64
    assert batch.tolist() == [int(row[1] > row[0]) for row in logits]
    assert set(batch.tolist()) == {0, 1}
    for x, action in zip(obs, batch, strict=True):
        one = policy.act(x)
        assert one.shape == ()
        assert one == action
        assert Discrete(2).contains(one)
    assert policy.act(obs[0].tolist()) == policy.act(torch.tensor(obs[0])) == batch[0]
    assert policy.act(obs.reshape(4, 5, 4)).tolist() == batch.reshape(4, 5).tolist()


def test_an_observation_that_is_not_finite_is_refused():
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        policy, obs = untrained(env_id)
        for wrong in (np.nan, np.inf, 1e39):  # the last one is infinite in float32
            spoilt = obs[:3].astype(np.float64)
            spoilt[1, 2] = wrong
            for given in (spoilt, spoilt[1], spoilt[1].tolist(), torch.tensor(spoilt)):
                with pytest.raises(ValueError, match=r"(?s)^obs is .*(nan|inf).*, expected fin"):
                    policy.act(given)
        with torch.no_grad():
            next(policy.net.parameters()).fill_(np.nan)
        with pytest.raises(ValueError, match=r"(?s)^dist_params is .*nan.*, expected no NaN"):
            policy.act(obs)


@pytest.mark.parametrize("deterministic", [True, False])
def test_one_nan_among_the_numbers_of_a_policy_reaches_no_environment(deterministic):
    policy, obs = untrained("Pendulum-v1")
    with torch.no_grad():
        policy.log_std.fill_(np.nan)  # the means are finite
    for given in (obs, obs[0]):
        with pytest.raises(ValueError, match=r"(?s)^dist_params is .*nan.*, expected no NaN"):
            policy.act(given, deterministic=deterministic)


def test_a_forbidden_action_is_not_taken():
    policy, obs = untrained("CartPole-v1")
    with torch.no_grad():
        policy.net[-1].bias[0] = -torch.inf
    assert set(policy.act(obs).tolist()) == {1}


def test_a_state_by_number_is_an_integer():
    with PPO("ppo_lib/Ridge-v0", SMALL) as trainer:
        for wrong in (1.7, np.nan, [1.0, 2.0], np.array([3.0])):
            with pytest.raises(ValueError, match=r"^obs is .*, expected integers"):
                trainer.policy.act(wrong)
        states = np.arange(3, dtype=np.uint8)
        assert trainer.policy.act(states).tolist() == [
            int(trainer.policy.act(s)) for s in (0, 1, 2)
        ]


def test_actions_in_a_box_are_clipped_as_the_environment_wants_them():
    policy, obs = untrained("Pendulum-v1")
    means = policy(torch.tensor(obs))[:, :1].detach().numpy()
    assert (means < -2).any()
    assert (means > 2).any()
    batch = policy.act(obs)
    assert (batch.dtype, batch.shape) == (np.float32, (20, 1))
    np.testing.assert_array_equal(batch, np.clip(means, -2, 2))
    space = gym.make("Pendulum-v1").action_space
    drawn = policy.act(obs, deterministic=False, generator=torch.Generator().manual_seed(0))
    for action in (*batch, *drawn, policy.act(obs[0])):
        assert space.contains(action)
    assert (np.abs(batch) == 2).any()


class Bounded(Policy):
    """A Gaussian policy of one's own, with bounds as `Policy` asks for them."""

    dist = DiagonalGaussian

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)

    def forward(self, obs):
        return self.net(obs)

    def in_bounds(self, actions):
        return actions.clamp(-2, 2)


def test_a_policy_of_ones_own_keeps_to_the_bounds_that_it_has():
    trainer = PPO("Pendulum-v1", SMALL, policy=Bounded())
    with torch.no_grad():
        trainer.policy.net.bias.fill_(7.0)
    trainer.learn()
    obs = trainer.collector.obs.numpy()
    assert trainer.policy(trainer.collector.obs)[:, 0].min() > 2
    assert trainer.policy.act(obs).tolist() == [[2.0]] * 4
    assert trainer.envs.single_action_space.contains(trainer.policy.act(obs[0]))


def test_drawn_actions_have_the_policys_probabilities_and_come_from_the_generator_given():
    policy = TabularPolicy(1, 2)
    with torch.no_grad():
        policy.logits[0] = torch.tensor([0.2, 0.8]).log()
    states = np.zeros(2000, dtype=np.int64)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return policy.act(states, deterministic=False, generator=generator)

    # Five standard errors: 5 √(0.2 · 0.8 / 2000) = 0.045.
    assert abs(draw(0).mean() - 0.8) < 0.045
    assert draw(0).tolist() == draw(0).tolist() != draw(1).tolist()
    assert policy.act(states).tolist() == [1] * 2000
    torch.manual_seed(3)
    first = policy.act(states, deterministic=False)
    torch.manual_seed(3)
    assert first.tolist() == policy.act(states, deterministic=False).tolist()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_policy_is_loaded_and_acts_without_an_environment(
    env_id, normalized, tmp_path, monkeypatch
):
    trainer = PPO(env_id, dataclasses.replace(SMALL, normalize_obs=normalized))
    trainer.learn()
    trainer.save(tmp_path / "agent.pt")

    def refuse(*_, **__):
        raise AssertionError("an environment was made")

    monkeypatch.setattr(gym, "make", refuse)
    monkeypatch.setattr(gym, "make_vec", refuse)
    policy = load_policy(tmp_path / "agent.pt")
    obs = trainer.collector.obs.numpy()
    assert policy.act(obs).tolist() == trainer.policy.act(obs).tolist()
    # It is a module like others: pickled, it is the same.
    again = pickle.loads(pickle.dumps(policy))
    assert again.act(obs).tolist() == policy.act(obs).tolist()
    assert type(policy) is (CategoricalPolicy if env_id == "CartPole-v1" else GaussianPolicy)


def test_the_bounds_of_actions_are_loaded_with_the_policy(tmp_path):
    trainer = PPO("Pendulum-v1", SMALL)
    with torch.no_grad():
        trainer.policy.net[-1].bias.fill_(77.0)
    trainer.save(tmp_path / "agent.pt")
    assert load_policy(tmp_path / "agent.pt").act(np.zeros(3)).tolist() == [2.0]


def test_the_first_things_that_somebody_does(tmp_path):
    # As the README says it.
    config = dataclasses.replace(settings("CartPole-v1"), total_steps=4096)
    with PPO("CartPole-v1", config) as trainer:
        trainer.learn()
        trainer.save(tmp_path / "cartpole.pt")
    with PPO.load(tmp_path / "cartpole.pt", total_steps=20_480) as trainer:
        assert len(trainer.learn()) == 10
        trainer.save(tmp_path / "cartpole.pt")
    policy = load_policy(tmp_path / "cartpole.pt")
    # Untrained it would be below 30.
    assert evaluate(policy, "CartPole-v1", num_episodes=5, seed=1).mean() > 100
    env, total, over = gym.make("CartPole-v1"), 0.0, False
    obs, _ = env.reset(seed=1)
    while not over:
        obs, reward, terminated, truncated, _ = env.step(policy.act(obs))
        total, over = total + float(reward), terminated or truncated
    assert total == evaluate(policy, "CartPole-v1", num_episodes=1, seed=1).item()


# ------------------------------------------------------------------ spaces


def test_states_by_number_are_learned_from_and_read_back(tmp_path):
    # A state's number says where it is: each has a row of its own in the first layer.
    config = dataclasses.replace(SMALL, total_steps=4096, num_steps=64, minibatch_size=64)
    trainer = PPO("ppo_lib/Ridge-v0", config)
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.learn()
    assert not any(torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))
    trainer.save(tmp_path / "a.pt")
    policy = load_policy(tmp_path / "a.pt")
    states = np.arange(14)
    assert policy.act(states).tolist() == [int(trainer.policy.act(state)) for state in states]
    weights = trainer.policy.net[1].weight.detach()
    hidden = trainer.policy.net[:2](torch.tensor([3, 0]))
    expected = weights[:, [3, 0]].T + trainer.policy.net[1].bias
    torch.testing.assert_close(hidden, expected)
    assert PPO.load(tmp_path / "a.pt").anew == ""


def test_the_number_of_a_state_is_not_normalised():
    with pytest.raises(
        ValueError, match=r"^normalize_obs is True, expected False for observ.*Disc"
    ):
        PPO("ppo_lib/Ridge-v0", dataclasses.replace(SMALL, normalize_obs=True))


class Aim(gym.Env):
    """One step, which pays the more the nearer the action is to a place between the bounds."""

    observation_space = Box(-1, 1, (1,))

    def __init__(self, low=-1.0, high=1.0, dtype=np.float32):
        self.action_space = Box(np.array([low], dtype), np.array([high], dtype), dtype=dtype)
        self.best = low + 0.8 * (high - low)
        self.width = high - low

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        missed = abs(float(action[0]) - self.best) / self.width
        return np.zeros(1, np.float32), -missed, True, False, {}


gym.register("tests/Aim-v0", Aim)
FAR = [(-500.0, 500.0), (0.0, 0.001), (-100.0, -99.0)]
NEAR = [(-1.0, 1.0), (-2.0, 2.0), (0.0, 1.0), (-0.4, 0.4), (-10.0, 10.0), (-np.inf, np.inf)]


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")  # gymnasium's own, of a Box
@pytest.mark.parametrize(("low", "high"), FAR)
def test_bounds_far_from_those_of_a_policy_are_warned_of_and_a_wrapper_scales_them(low, high):
    kwargs = {"low": low, "high": high}
    said = (
        r"^action_space is Box.* never scaled: .*gymnasium\.wrappers\.RescaleAction\(env, min_act"
    )
    with pytest.warns(UserWarning, match=said):
        PPO("tests/Aim-v0", SMALL, env_kwargs=kwargs)
    config = dataclasses.replace(SMALL, total_steps=4096, num_steps=64, minibatch_size=64)
    scale = (gym.wrappers.RescaleAction, {"min_action": -1.0, "max_action": 1.0})
    trainer = PPO("tests/Aim-v0", config, env_kwargs=kwargs, wrappers=[scale])
    trainer.learn()
    # A policy that knows nothing takes the middle, and misses by 0.3 of the width.
    earned = evaluate(trainer.policy, "tests/Aim-v0", seed=0, env_kwargs=kwargs, wrappers=[scale])
    assert earned.mean() > -0.15


@pytest.mark.parametrize(("low", "high"), NEAR)
def test_bounds_that_a_policy_meets_are_not_warned_of(low, high):
    space = Box(low, high, (2,))
    make_networks(Box(-1, 1, (1,)), space, (4,), torch.Generator())


def warned_of(*bounds):
    """Whether a policy for these bounds, one pair an action, is warned of."""
    space = Box(*np.array(bounds, np.float32).T)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        make_networks(Box(-1, 1, (1,)), space, (4,), torch.Generator())
    return len(said) == 1


def test_warnings_begin_at_20_deviations_and_at_one_number_in_20():
    assert warned_of((-10.25, 10.25))
    assert not warned_of((-10, 10))
    assert warned_of((-3e38, 3e38))  # whose distance has no room in float32
    normal = NormalDist()
    for share, far in ((0.049, True), (0.051, False)):
        upper = normal.inv_cdf(0.5 + share)
        assert warned_of((0, upper)) == warned_of((-upper, 0)) == far
        assert warned_of((-1, 1), (0, upper)) == far  # one action is enough
    assert warned_of((normal.inv_cdf(0.951), np.inf))
    assert not warned_of((normal.inv_cdf(0.949), np.inf))


def test_actions_of_integers_are_refused():
    with pytest.raises(ValueError, match=r"action_space is Box.*int64.* of floating-point numbers"):
        PPO(lambda: Aim(-3, 3, np.int64), SMALL)


class Large(Count):
    """Numbers that float64 holds and float32 does not."""

    def __init__(self, obs=0.0, reward=0.0):
        super().__init__()
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float64)
        self.obs, self.reward = obs, reward

    def _obs(self):
        return np.array([self.obs])

    def step(self, action):
        obs, _, *flags = super().step(action)
        return obs, self.reward, *flags


@pytest.mark.parametrize("name", ["obs", "reward"])
def test_numbers_too_large_for_float32_are_refused_by_their_own_name(name):
    message = r"(?s)^(observation|reward) is .*inf.*, expected finite numbers"
    with pytest.raises(ValueError, match=message) as refusal:
        PPO(lambda: Large(**{name: 1e300}), SMALL).learn()
    assert str(refusal.value).startswith({"obs": "observation"}.get(name, name))


# ------------------------------------------------------------------ what others do first


def test_a_callable_that_gives_one_environment_again_is_refused():
    env = gym.make("CartPole-v1")
    with pytest.raises(ValueError, match="env made 1 environments in 4 calls, expected a new one"):
        PPO(lambda: env, SMALL)


class Dropping(Policy):
    """A network that is another one while it learns."""

    dist = Categorical

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 2)
        )

    def forward(self, obs):
        return self.net(obs.reshape(-1, 4)).reshape(*obs.shape[:-1], 2)


def test_dropout_and_batch_norm_are_off_where_actions_are_drawn_or_judged():
    torch.manual_seed(0)
    policy = Dropping()
    before = copy.deepcopy(policy.state_dict())
    row = np.full(4, 0.5, np.float32)
    assert len({int(policy.act(row)) for _ in range(20)}) == 1
    first, second = (evaluate(policy, "CartPole-v1", num_episodes=3, seed=4) for _ in range(2))
    assert torch.equal(first, second)
    assert policy.training
    assert all(torch.equal(x, before[name]) for name, x in policy.state_dict().items())


def test_an_optimizer_of_ones_own_stays_when_learning():
    trainer = PPO("CartPole-v1", SMALL)
    trainer.optimizer = own = torch.optim.SGD(trainer.policy.parameters(), lr=1e-3)
    trainer.learn()
    assert trainer.optimizer is own


def test_the_seed_of_an_evaluation_that_draws_is_one_that_torch_and_gymnasium_take():
    policy = PPO("CartPole-v1", SMALL).policy
    evaluate(policy, "CartPole-v1", num_episodes=1, seed=2**63 - 1, deterministic=False)
    evaluate(policy, "CartPole-v1", num_episodes=1, seed=2**63)
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=f"^seed is {seed}, expected an integer from 0 to"):
            evaluate(policy, "CartPole-v1", num_episodes=1, seed=seed, deterministic=False)


@pytest.mark.parametrize("env", [gym.spec("CartPole-v1"), gym.make("CartPole-v1"), 7, None])
def test_what_is_no_environment_is_refused_and_named(env):
    with pytest.raises(
        ValueError, match=r"^env is .*, expected an id, a callable that makes a new"
    ):
        PPO(env, SMALL)
    # What the message says works.
    assert PPO(gym.spec("CartPole-v1").make, SMALL).envs.num_envs == 4


@pytest.mark.parametrize("config", [{"gamma": 0.9}, "CartPole-v1", 3])
def test_a_configuration_that_is_none_is_refused_and_named(config):
    with pytest.raises(ValueError, match=r"^config is .*, expected a PPOConfig"):
        PPO("CartPole-v1", config)


def test_seeds_are_those_that_torch_takes():
    assert PPO("CartPole-v1", dataclasses.replace(SMALL, seed=2**63 - 1)).config.seed == 2**63 - 1
    with pytest.raises(ValueError, match=r"^seed is 9+, expected an integer from 0 to 2\^63 - 1"):
        dataclasses.replace(SMALL, seed=int("9" * 23))


def test_an_id_without_a_version_is_the_latest_one():
    trainer = PPO("CartPole")
    assert trainer.config == settings("CartPole-v1") == settings("CartPole")
    assert trainer.env_name["id"] == "CartPole-v1"
    assert settings("CartPole-v0") == settings("Nothing") == settings("no id") == PPOConfig()


def test_an_action_may_be_looked_up_in_a_dictionary():
    policy = CategoricalPolicy(4, 2, (8,), torch.Generator().manual_seed(0))
    assert {0: "left", 1: "right"}[policy.act(np.zeros(4))] in ("left", "right")


@pytest.mark.parametrize("answer", [0.5, 3, "stop"])
def test_a_callback_that_answers_something_else_is_refused(answer):
    with pytest.raises(ValueError, match=r"a callback returned .*, expected True, False or None"):
        PPO("CartPole-v1", SMALL).learn(lambda _: answer)


def test_a_loaded_trainer_has_the_arguments_and_wrappers_of_the_saved_one(tmp_path):
    limit = (gym.wrappers.TimeLimit, {"max_episode_steps": 7})
    PPO("Pendulum-v1", SMALL, env_kwargs={"g": 3.0}, wrappers=[limit]).save(tmp_path / "a.pt")
    for env in (None, "Pendulum-v1"):
        inner = PPO.load(tmp_path / "a.pt", env=env).envs.envs[0]
        assert isinstance(inner, gym.wrappers.TimeLimit)
        assert inner.unwrapped.g == 3.0


def test_a_wrapper_whose_statistics_would_be_lost_is_refused():
    with pytest.raises(ValueError, match=r"wrappers holds NormalizeObservation, .* normalize_obs"):
        PPO("Pendulum-v1", SMALL, wrappers=[gym.wrappers.NormalizeObservation])
    with pytest.raises(ValueError, match=r"^wrappers is .*, expected none with a callable"):
        PPO(lambda: gym.make("CartPole-v1"), SMALL, wrappers=[gym.wrappers.FlattenObservation])


def test_a_state_is_a_picture_of_its_moment_and_a_change_of_beta_counts(tmp_path):
    trainer = PPO("CartPole-v1", dataclasses.replace(SMALL, loss="kl"))
    trainer.learn(lambda _: True)
    state = copy.deepcopy(trainer.policy.state_dict())
    kept = trainer.state_dict()
    trainer.save(tmp_path / "a.pt")
    moments = [x["exp_avg"].clone() for x in trainer.optimizer.state.values()]
    trainer.learn()
    assert len(kept["rows"]) == 1
    assert all(torch.equal(kept["policy"][name], x) for name, x in state.items())
    then = [x["exp_avg"] for x in kept["optimizer"]["state"].values()]
    assert all(torch.equal(a, b) for a, b in zip(then, moments, strict=True))
    loaded = PPO.load(tmp_path / "a.pt", kl_coef=50.0)
    assert loaded.kl_coef == 50.0
    assert all(torch.equal(x, state[name]) for name, x in loaded.policy.state_dict().items())


class Endless(gym.Env):
    """A world of one state that never ends."""

    observation_space = gym.spaces.Discrete(1)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return 0, {}

    def step(self, action):  # noqa: ARG002  (gymnasium's own form)
        return 0, 0.0, False, False, {}


def test_an_episode_that_does_not_end_is_not_waited_for():
    envs = make_envs(Endless, 2)
    with pytest.raises(
        ValueError, match=r"^envs has an episode that goes on after 50 steps, .*Time"
    ):
        play_episodes(envs, TabularPolicy(1, 2), seed=0, max_steps=50)


class Counted(gym.Wrapper):
    """Counts how many are open."""

    open = 0

    def __init__(self, env):
        super().__init__(env)
        Counted.open += 1

    def close(self):
        Counted.open -= 1
        super().close()


def test_what_is_refused_leaves_no_environment_open(tmp_path):
    def make():
        return Counted(gym.make("CartPole-v1"))

    with pytest.raises(ValueError, match="normalize_obs is True"):
        PPO(make, dataclasses.replace(SMALL, normalize_obs=True), policy=TabularPolicy(14, 3))
    one = make()
    with pytest.raises(ValueError, match="env made 1 environments"):
        PPO(lambda: one, SMALL)
    with PPO("Pendulum-v1", SMALL) as trainer:
        trainer.save(tmp_path / "pendulum.pt")
    with pytest.raises(ValueError, match="env has spaces"):
        PPO.load(tmp_path / "pendulum.pt", env=make)
    assert Counted.open <= 0


def test_evaluation_closes_its_environments(monkeypatch):
    monkeypatch.setattr(Counted, "open", 0)
    policy = make_networks(Box(-1, 1, (4,)), gym.spaces.Discrete(2), (), torch.Generator())[0]
    evaluate(policy, lambda: Counted(gym.make("CartPole-v1")), num_episodes=3, seed=0)
    assert Counted.open == 0


def test_a_rollout_that_could_hold_resets_alone_is_refused():
    config = dataclasses.replace(SMALL, num_envs=1, num_steps=1, minibatch_size=1)
    with pytest.raises(ValueError, match="num_steps is 1, expected at least 2 with vectorizati"):
        dataclasses.replace(config, vectorization="array")
    with (
        PPO(gym.make_vec("CartPole-v1", 1), config) as trainer,
        pytest.raises(ValueError, match="num_steps is 1, expected at least 2"),
    ):
        trainer.learn()


# ------------------------------------------------------------------ networks that do not fit


class Layer(Policy):
    """One layer from an observation to whatever number of parameters."""

    def __init__(self, dist, obs_dim, width):
        super().__init__()
        self.dist, self.layer = dist, nn.Linear(obs_dim, width)

    def forward(self, obs):
        return self.layer(obs)


class Arm(Count):
    """Three numbers are an action."""

    action_space = Box(-1, 1, (3,))


class Choice(Count):
    """One of four actions."""

    action_space = Discrete(4)


def test_a_policy_of_another_width_is_refused_and_never_broadcast():
    narrow = Layer(DiagonalGaussian, 1, 2)  # one number where three are expected
    message = r"^the policy's actions have shape \(1,\), expected \(3,\) of Box"
    with pytest.raises(ValueError, match=message):
        PPO(Arm, SMALL, policy=narrow)
    with pytest.raises(ValueError, match=message):
        evaluate(narrow, Arm, seed=0)
    with pytest.raises(ValueError, match=r"^policy gives parameters of shape \(4, 2\), .*\(4, 4\)"):
        PPO(Choice, SMALL, policy=Layer(Categorical, 1, 2))
    with pytest.raises(ValueError, match=r"^critic gives values of shape \(4, 1\), .*\(4,\)"):
        PPO(Choice, SMALL, critic=nn.Linear(1, 1))


def test_networks_that_begin_with_infinite_numbers_are_refused_before_training():
    for wrong in (np.nan, np.inf):
        critic = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
        nn.init.constant_(critic[0].bias, wrong)
        with pytest.raises(ValueError, match=r"^critic gives tensor\(\[(nan|inf), .*, expected"):
            PPO("CartPole-v1", SMALL, critic=critic)
    message = r"(?s)^dist_params is .*-inf.*, expected a distribution of actions, each of a finite"
    impossible, _ = untrained("CartPole-v1")
    spread, _ = untrained("Pendulum-v1")
    far, _ = untrained("Pendulum-v1")
    with torch.no_grad():
        impossible.net[-1].bias.fill_(-torch.inf)
        spread.log_std.fill_(-torch.inf)
        far.net[-1].bias.fill_(-torch.inf)
    for policy, env_id in (
        (impossible, "CartPole-v1"),
        (spread, "Pendulum-v1"),
        (far, "Pendulum-v1"),
    ):
        with pytest.raises(ValueError, match=message):
            PPO(env_id, SMALL, policy=policy)


@pytest.mark.parametrize("which", [0, -1])
def test_one_observation_that_a_network_gives_infinity_for_is_enough(which):
    class Broken(nn.Module):
        dist = Categorical

        def __init__(self, width):
            super().__init__()
            self.layer = nn.Linear(4, width)

        def forward(self, obs):
            wrong = self.layer(obs)
            wrong[which] = -torch.inf
            return wrong if self.layer.out_features > 1 else wrong.squeeze(-1)

    with pytest.raises(ValueError, match=r"^critic gives tensor.*, expected finite"):
        PPO("CartPole-v1", SMALL, critic=Broken(1))
    with pytest.raises(ValueError, match=r"(?s)^dist_params is .*, expected a distribution of act"):
        PPO("CartPole-v1", SMALL, policy=Broken(2))


def choosing(space):
    """An environment that is `Count` with another action space, and asks it at every step."""
    return type("Choosing", (Count,), {"action_space": space})


class Ordered:
    """A distribution of one's own: one of three numbers, from one parameter."""

    @staticmethod
    def sample(params, generator):
        return Categorical.sample(Ordered.logits(params), generator)

    mode = staticmethod(lambda params: Ordered.logits(params).argmax(-1))
    log_prob = staticmethod(lambda params, a: Categorical.log_prob(Ordered.logits(params), a))
    entropy = staticmethod(lambda params: Categorical.entropy(Ordered.logits(params)))
    logits = staticmethod(lambda params: params[..., :1] * torch.tensor([-1.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("dist", "space", "width", "message"),
    [
        (MultiCategorical([2, 3]), MultiDiscrete([3, 2]), 5, r"sizes \[2, 3\], expected \[3, 2\]"),
        (DiagonalGaussian, MultiDiscrete([3, 1]), 4, "are torch.float32, expected integers of Mu"),
        (Categorical, MultiDiscrete([3, 1]), 4, r"actions have shape \(4,\), expected \(2,\) of"),
        (DiagonalGaussian, Discrete(2), 2, r"are torch.float32, expected integers of Discrete\(2"),
        (MultiCategorical([2]), Discrete(2), 2, r"drawn the action \[[01]\], expected one of Disc"),
        (Ordered, Discrete(2), 2, "drawn the action 2, expected one of Discrete"),
        (Categorical, Box(-1, 1, (1,)), 3, r"actions have shape \(4,\), expected \(1,\) of Box"),
        (MultiCategorical([3]), Box(-1, 1, (1,)), 3, "are torch.int64, expected floating-point nu"),
    ],
)
def test_a_distribution_that_draws_no_actions_of_the_space_is_refused(dist, space, width, message):
    policy = Layer(dist, 1, width)
    with torch.no_grad():  # the largest number, nearly always
        policy.layer.bias.fill_(50.0)
        policy.layer.weight.zero_()
    with pytest.raises(ValueError, match=message):
        PPO(choosing(space), SMALL, policy=policy)


def test_parameters_without_a_dimension_of_their_own_are_refused():
    policy = Layer(DiagonalGaussian, 1, 2)
    policy.forward = lambda obs: obs.sum(-1)
    with pytest.raises(ValueError, match=r"parameters of shape \(\d+,\), expected \("):
        PPO(choosing(Box(-1, 1, (1,))), SMALL, policy=policy)


def test_a_distribution_of_ones_own_is_trained_with():
    history = PPO(choosing(Discrete(3)), SMALL, policy=Layer(Ordered, 1, 3)).learn()
    assert len(history) == SMALL.num_updates


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("policy", Bounded), ("policy", nn.Linear(1, 4)), ("policy", 3), ("critic", nn.Linear)],
)
def test_what_is_no_network_is_refused_and_named(name, wrong):
    with pytest.raises(ValueError, match=rf"^{name} is .*, expected a (Policy|module), made"):
        PPO(Choice, SMALL, **{name: wrong})


def test_where_a_network_is_refused_what_was_opened_for_it_is_closed_and_nothing_else():
    opened = []

    def make():
        opened.append(Count())
        return opened[-1]

    given = SyncVectorEnv([Count] * SMALL.num_envs, autoreset_mode=AutoresetMode.DISABLED)
    for env in (make, given):
        with pytest.raises(ValueError, match=r"^critic is .*, expected"):
            PPO(env, SMALL, critic=nn.Linear)
    assert [counter.closed for counter in opened] == [True] * len(opened)
    assert len(opened) >= SMALL.num_envs
    assert not any(counter.closed for counter in given.envs)


# ------------------------------------------------------------------ actions as the space wants


SPACES = [
    Box(-0.1, 0.1, (2,), np.float64),
    Box(np.array([0.3, -np.inf]), np.array([np.inf, 0.7]), dtype=np.float64),
    Box(-1, 1, (2,), np.float16),
    Box(-1, 1, (2,), np.float32),
    MultiDiscrete([3, 2], dtype=np.int32),
    MultiDiscrete([3, 2], dtype=np.int8),
    MultiDiscrete([3, 2]),
    Discrete(3, dtype=np.int32),
    Discrete(3),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_every_action_is_one_that_the_space_contains(space, tmp_path):
    trainer = PPO(choosing(space), SMALL)
    trainer.learn()  # in which the environment asks
    trainer.save(tmp_path / "a.pt")
    evaluate(trainer.policy, choosing(space), num_episodes=2, seed=0)
    with PPO.load(tmp_path / "a.pt", env=choosing(space)) as again:
        policies = [trainer.policy, again.policy, load_policy(tmp_path / "a.pt")]
    obs = np.zeros((200, 1), np.float32)
    for policy in policies:
        drawn = policy.act(obs, deterministic=False, generator=torch.Generator().manual_seed(0))
        assert len(np.unique(drawn, axis=0)) > 1
        for action in (*drawn, policy.act(obs[0])):
            assert space.contains(action)


@pytest.mark.parametrize("bound", [0.1, 0.7])  # which float32 rounds up
def test_bounds_are_rounded_inwards(bound):
    space = Box(-bound, bound, (1,), np.float64)
    policy, _ = make_networks(Box(-1, 1, (2,)), space, (4,), torch.Generator())
    assert -bound <= policy.low.item() < 1e-7 - bound
    assert bound - 1e-7 < policy.high.item() <= bound


class Merging(nn.Linear):
    """Does something when it is put to rest and awakened, as layers of adapters do."""

    merged = False

    def train(self, mode=True):
        self.merged = not mode
        return super().train(mode)


def test_a_layer_is_awakened_by_its_own_train_and_one_that_rests_goes_on_resting():
    policy = Layer(Categorical, 1, 2)
    policy.layer = nn.Sequential(Merging(1, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    policy.layer[1].eval()
    resting = []
    policy.layer[0].register_forward_hook(lambda layer, *_: resting.append(layer.merged))
    trainer = PPO(lambda: Count(), dataclasses.replace(SMALL, total_steps=32), policy=policy)
    trainer.collect()
    assert resting == [True] * 9  # once when it is looked at, and at each of eight steps
    assert [module.training for module in policy.layer] == [True, False, True]
    assert not policy.layer[0].merged


def test_training_goes_on_in_new_episodes_after_a_rollout_that_was_interrupted():
    class Interrupted(Count):
        pressed = False

        def step(self, action):
            if self.steps == 4 and not Interrupted.pressed:
                Interrupted.pressed = True
                raise KeyboardInterrupt
            return super().step(action)

    trainer = PPO(Interrupted, dataclasses.replace(SMALL, num_envs=2, minibatch_size=4))
    with pytest.raises(KeyboardInterrupt):
        trainer.learn()
    rollout = trainer.collect()
    # Every step leads to the next number, and every episode has its three steps.
    assert torch.equal(rollout.next_obs, rollout.obs + 1)
    assert rollout.episode_lengths.tolist() == [3] * 4
    assert len(trainer.learn()) == 6


def test_rates_of_an_optimizer_of_ones_own_stay():
    trainer = PPO("CartPole-v1", SMALL)
    networks = (trainer.policy, 1e-5), (trainer.critic, 1e-2)
    groups = [{"params": list(network.parameters()), "lr": rate} for network, rate in networks]
    trainer.optimizer = torch.optim.SGD(groups)
    trainer.learn()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [1e-5, 1e-2]


class Allowed(Layer):
    """Action 1 is not allowed."""

    def forward(self, obs):
        return self.layer(obs) + torch.tensor([0.0, -torch.inf, 0.0, 0.0])


def test_an_action_that_is_not_allowed_is_never_taken_in_training_and_evaluation():
    taken = set()

    class Watching(Choice):
        def step(self, action):
            taken.add(int(action))
            return super().step(action)

    config = dataclasses.replace(SMALL, total_steps=320, ent_coef=0.01)
    trainer = PPO(Watching, config, policy=Allowed(Categorical, 1, 4))
    history = trainer.learn()
    assert np.isfinite([row["entropy"] for row in history.rows]).all()
    assert all(p.isfinite().all() for p in trainer.parameters)
    assert evaluate(trainer.policy, Watching, seed=0).tolist() == [3.0] * 20
    assert taken == {0, 2, 3}


def test_new_episodes_begin_with_nothing_earned():
    config = dataclasses.replace(SMALL, normalize_rewards=True)
    trainer = PPO(lambda: Count(dies=False), config)
    trainer.learn(lambda _: True)
    assert (trainer.reward_normalizer.sums > 1).all()
    trainer.start_episodes()
    assert trainer.reward_normalizer.sums.tolist() == [0.0] * 4


def test_a_layer_that_a_callback_puts_in_is_trained_from_the_next_update_on():
    torch.manual_seed(0)
    layer = nn.Linear(8, 2)
    drawn = copy.deepcopy(layer)

    def put_in(trainer):
        if trainer.env_steps == 32:
            trainer.policy.net[-1] = layer
        # One update later it is another.
        assert torch.equal(layer.weight, drawn.weight) == (trainer.env_steps == 32)

    PPO("CartPole-v1", SMALL).learn(put_in)
    assert not torch.equal(layer.bias, drawn.bias)


@pytest.mark.parametrize("resting", [False, True])
def test_dropout_is_off_for_actions_and_values_and_on_in_the_loss_unless_it_rests(resting):
    torch.manual_seed(0)
    policy = Dropping().train(not resting)
    critic = nn.Sequential(nn.Linear(4, 64), nn.Dropout(), nn.Linear(64, 1), nn.Flatten(-2))
    whole = dataclasses.replace(SMALL, minibatch_size=32, num_epochs=1)
    trainer = Watched("CartPole-v1", whole, policy=policy, critic=critic)
    quiet = copy.deepcopy(critic).eval()
    row = trainer.update(trainer.collect())
    (minibatch,) = trainer.minibatches
    with torch.no_grad():
        assert torch.allclose(minibatch.values, quiet(minibatch.obs), atol=1e-5)
    assert critic.training
    # The first ratio is 1 only where the loss sees the network that the actions were drawn with.
    assert row["approx_kl"] < 1e-9 if resting else row["approx_kl"] > 1e-4


def test_the_price_of_kl_follows_the_policies_that_act():
    torch.manual_seed(0)
    policy = Dropping()
    policy.net = nn.Sequential(nn.Linear(4, 64), nn.Dropout(), nn.Linear(64, 2))
    still = dataclasses.replace(SMALL, loss="kl", learning_rate=1e-9, adaptive_kl_target=1e-4)
    trainer = PPO("CartPole-v1", still, policy=policy)
    trainer.update(trainer.collect())
    # Nothing has moved, but with dropout it would seem to.
    assert trainer.kl_coef == 0.5
