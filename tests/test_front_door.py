"""The trainer as people use it: their environments, their networks, and torch's own tools on it."""

import copy
import dataclasses
import inspect

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn
from torch.nn.utils import parametrizations, prune

from ppo_lib import PPO, Policy, PPOConfig, evaluate, settings
from ppo_lib.distributions import Categorical
from ppo_lib.normalizers import ObsNormalizer
from ppo_lib.policies import CategoricalPolicy, GaussianPolicy

SMALL = PPOConfig(
    total_steps=128, num_envs=4, num_steps=8, minibatch_size=8, num_epochs=2, hidden_sizes=(8,)
)


def weights(trainer):
    return nn.utils.parameters_to_vector(trainer.parameters).detach().clone()


def learns(trainer):
    """Train for what is left: whether every parameter has moved."""
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.learn()
    moved = [not torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True)]
    return all(moved)


def make():
    return PPO("CartPole-v1", SMALL)


# ------------------------------------------------------------------ torch's tools on a trainer


def test_a_copy_of_a_trainer_learns_and_leaves_the_first_alone():
    trainer = make()
    trainer.learn(lambda _: True)
    before, copied = weights(trainer), copy.deepcopy(trainer)
    assert learns(copied)
    assert torch.equal(weights(trainer), before)
    trainer.learn()
    assert torch.equal(weights(trainer), weights(copied))


def test_networks_that_went_to_float64_and_back_learn():
    trainer, other = make(), make()
    for network in (trainer.policy, trainer.critic):
        network.double().float()
    assert learns(trainer)
    other.learn()
    assert torch.equal(weights(trainer), weights(other))


def test_parameters_that_came_from_a_vector_learn():
    trainer = make()
    torch.manual_seed(0)
    start = torch.randn_like(weights(trainer)) / 10
    nn.utils.vector_to_parameters(start, trainer.parameters)
    assert torch.equal(weights(trainer), start)
    assert learns(trainer)


def by_hand(net, x):
    first, _, second, _, last = net
    x = torch.tanh(x @ first.weight.T + first.bias)
    return torch.tanh(x @ second.weight.T + second.bias) @ last.weight.T + last.bias


def test_a_network_is_exported_and_traced_with_its_tanh():
    policy = CategoricalPolicy(4, 2, (16, 16), torch.Generator().manual_seed(0))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    expected = by_hand(policy.net, x)
    exported = torch.export.export(policy, (x,)).module()
    for found in (policy(x), exported(x), torch.jit.trace(policy, x)(x)):
        torch.testing.assert_close(found, expected)


# What torch.export and torch.jit.trace say of themselves is none of ours.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch"
)


def test_autocast_hooks_and_second_derivatives_work():
    policy = CategoricalPolicy(4, 2, (16,), torch.Generator().manual_seed(0))
    x, fired = torch.ones(5, 4, requires_grad=True), []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert policy(x).dtype == torch.bfloat16
    for module in policy.net:
        module.register_forward_hook(lambda m, *_: fired.append(type(m)))
    y = policy(x)
    assert fired == [nn.Linear, nn.Tanh, nn.Linear]
    (slope,) = torch.autograd.grad(y[:, 0].sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert bend.abs().max() > 0


def test_a_frozen_layer_stays_and_the_others_learn():
    trainer = make()
    first = trainer.policy.net[0].requires_grad_(requires_grad=False)
    frozen, last = first.weight.clone(), trainer.policy.net[2].weight.clone()
    trainer.learn()
    assert torch.equal(first.weight, frozen)
    assert not torch.equal(trainer.policy.net[2].weight, last)


def test_a_pruned_weight_stays_0_and_the_others_learn():
    trainer = make()
    layer = trainer.policy.net[0]
    prune.l1_unstructured(layer, "weight", amount=0.5)
    trainer.learn()
    assert (layer.weight == 0).sum() == layer.weight.numel() // 2
    assert not torch.equal(layer.weight_orig, make().policy.net[0].weight)


def test_a_reparametrised_layer_learns():
    trainer = make()
    trainer.learn(lambda _: True)
    layer = parametrizations.weight_norm(trainer.policy.net[0])
    assert learns(trainer)
    assert len(list(layer.parametrizations.weight.parameters())) == 2


def test_a_replaced_network_learns_and_adam_keeps_what_it_knows_of_the_other():
    trainer = make()
    trainer.learn(lambda _: True)
    kept = trainer.optimizer.state[trainer.critic.net[0].weight]["step"].item()
    trainer.policy.net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert learns(trainer)
    steps = {p.shape: state["step"].item() for p, state in trainer.optimizer.state.items()}
    assert kept == 8
    assert steps[trainer.critic.net[0].weight.shape] == 32
    assert steps[trainer.policy.net[0].weight.shape] == 24


# ------------------------------------------------------------------ environments


def test_an_environment_comes_by_id_by_callable_or_as_a_vector():
    callable_ = PPO(lambda: gym.make("CartPole-v1"), SMALL)
    disabled = [lambda: gym.make("CartPole-v1")] * 4
    vector = PPO(SyncVectorEnv(disabled, autoreset_mode=AutoresetMode.DISABLED), SMALL)
    trainers = [make(), callable_, vector]
    for trainer in trainers:
        trainer.learn()
    assert all(torch.equal(weights(trainers[0]), weights(other)) for other in trainers[1:])


def test_gymnasiums_default_vectors_are_learned_from_without_their_reset_steps():
    seen = []
    trainer = PPO(gym.make_vec("CartPole-v1", 4, vectorization_mode="sync"), SMALL)
    update, gradient = trainer.update, trainer.gradient

    def watch_update(rollout):
        seen.append((rollout.obs[rollout.mask], rollout.mask, []))
        return update(rollout)

    def watch_gradient(minibatch):
        seen[-1][2].append(minibatch.obs)
        return gradient(minibatch)

    trainer.update, trainer.gradient = watch_update, watch_gradient
    trainer.learn()
    assert not all(mask.all() for _, mask, _ in seen)
    for obs, mask, learned in seen:
        rows = sorted(map(tuple, torch.cat(learned).tolist()))
        assert rows == sorted(2 * list(map(tuple, obs.tolist())))  # two epochs
        assert len(rows) == 2 * int(mask.sum())


def test_a_vector_of_another_size_is_refused():
    with pytest.raises(ValueError, match="env has 3 copies, expected num_envs = 4"):
        PPO(gym.make_vec("CartPole-v1", 3), SMALL)


class Endless(gym.Env):
    """The same observation for ever; a step pays 1, and ``dies`` says when the world ends."""

    observation_space, action_space = Box(-2, 2, (1,)), gym.spaces.Discrete(2)

    def __init__(self, dies=0):
        self.dies = dies

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.count = 0
        return np.ones(1, np.float32), {}

    def step(self, action):  # noqa: ARG002
        self.count += 1
        return np.ones(1, np.float32), 1.0, self.count == self.dies, False, {}


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_endings_are_right_however_a_vector_resets(mode):
    # Reward 1 for ever, γ = 0.9: V = 10 wherever a time limit cuts.  An end after 5 steps makes
    # it 2.689: see `test_6_a_time_limit_is_not_a_death` of the probes.  A rollout holds two whole
    # episodes, and the two steps in which an environment resets itself.
    num_steps = 10 if mode == AutoresetMode.DISABLED else 12
    config = PPOConfig(
        total_steps=60 * 4 * num_steps,
        num_envs=4,
        num_steps=num_steps,
        minibatch_size=40,
        num_epochs=8,
        learning_rate=2e-2,
        gamma=0.9,
        max_grad_norm=100.0,
        hidden_sizes=(8,),
    )
    limited = [lambda: gym.wrappers.TimeLimit(Endless(), 5)] * 4
    for copies, value, error in ((limited, 10, 0.05), ([lambda: Endless(5)] * 4, 2.689, 0.03)):
        trainer = PPO(SyncVectorEnv(copies, autoreset_mode=mode), config)
        trainer.learn()
        with torch.no_grad():
            assert trainer.critic(torch.ones(1)).item() == pytest.approx(value, abs=error)


def test_environments_in_processes_teach_the_same():
    with PPO("CartPole-v1", dataclasses.replace(SMALL, vectorization="async")) as trainer:
        trainer.learn()
    other = make()
    other.learn()
    assert torch.equal(weights(trainer), weights(other))


def test_environments_are_closed_by_close_and_by_with():
    closed = []

    class Closing(Endless):
        def close(self):
            closed.append(self)

    trainer = PPO(Closing, SMALL)
    trainer.close()
    assert len(closed) == 4
    with pytest.raises(RuntimeError, match="inside"), PPO(Closing, SMALL):
        raise RuntimeError("inside")
    assert len(closed) == 8


def test_without_a_configuration_the_settings_of_the_id_count_in_python_too():
    assert PPO("CartPole-v1").config == settings("CartPole-v1")
    assert PPO("Acrobot-v1").config == PPOConfig()
    wrapped = PPO("CartPole-v1", wrappers=[gym.wrappers.FlattenObservation]).config
    assert wrapped == dataclasses.replace(settings("CartPole-v1"), vectorization="sync")


def test_threads_are_those_of_the_configuration_and_given_back():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for number in (1, 3):
            trainer = PPO("CartPole-v1", dataclasses.replace(SMALL, num_threads=number))
            trainer.learn(lambda _: seen.append(torch.get_num_threads()) or True)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 3]


# ------------------------------------------------------------------ networks of one's own


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


def test_networks_of_ones_own_learn_from_images():
    torch.manual_seed(0)
    config = dataclasses.replace(
        SMALL, total_steps=9600, num_steps=32, minibatch_size=32, learning_rate=2e-2, gamma=0.0
    )
    trainer = PPO(Pixels, config, policy=Convolution(), critic=Bright())
    trainer.learn()
    assert trainer.history.recent_return(200) > 0.95
    bright, dark = (np.full((1, 3, 3), x, np.uint8) for x in (200, 20))
    assert trainer.policy.act(bright) == 1
    assert trainer.policy.act(np.stack([dark, bright, dark])).tolist() == [0, 1, 0]


def test_normalised_observations_want_a_normaliser_in_networks_of_ones_own():
    config = dataclasses.replace(SMALL, normalize_obs=True)
    generator = torch.Generator().manual_seed(0)
    plain = CategoricalPolicy(4, 2, (8,), generator)
    with pytest.raises(ValueError, match=r"^normalize_obs is True, expected False with networks"):
        PPO("CartPole-v1", config, policy=plain, critic=nn.Sequential(nn.Linear(4, 1)))
    own = CategoricalPolicy(4, 2, (8,), generator)
    own.net = nn.Sequential(ObsNormalizer(4), own.net)
    trainer = PPO("CartPole-v1", SMALL, policy=own)
    trainer.learn()
    assert own.net[0].count.item() == 4 + 128


# ------------------------------------------------------------------ acting


def test_act_takes_one_observation_or_a_batch_of_any_kind():
    policy = CategoricalPolicy(4, 3, (8,), torch.Generator().manual_seed(0))
    rows = np.random.default_rng(0).normal(size=(6, 4))
    logits = policy(torch.tensor(rows, dtype=torch.float32))
    expected = logits.argmax(-1).tolist()
    assert policy.act(rows).tolist() == expected
    assert policy.act(torch.tensor(rows)).tolist() == expected
    assert policy.act(rows.tolist()).tolist() == expected
    assert [policy.act(row).item() for row in rows] == expected
    assert gym.spaces.Discrete(3).contains(policy.act(rows[0])[()])
    drawn = [
        policy.act(rows, deterministic=False, generator=torch.Generator().manual_seed(s)).tolist()
        for s in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(x) for x in drawn}) > 1


def test_act_keeps_to_the_bounds_of_the_environment():
    trainer = PPO("Pendulum-v1", dataclasses.replace(SMALL, total_steps=32))
    with torch.no_grad():
        trainer.policy.net[-1].bias += 5.0
    obs = trainer.collector.obs.numpy()
    assert trainer.policy(trainer.collector.obs)[:, 0].min() > 2
    assert trainer.policy.act(obs).tolist() == [[2.0]] * 4
    assert trainer.envs.single_action_space.contains(trainer.policy.act(obs[0]))
    free = GaussianPolicy(3, 1, (8,), torch.Generator().manual_seed(0))
    with torch.no_grad():
        free.net[-1].bias += 5.0
    assert free.act(obs).min() > 2


def test_acting_by_hand_earns_what_evaluation_says():
    trainer = PPO("CartPole-v1", dataclasses.replace(SMALL, total_steps=1024))
    trainer.learn()
    env = gym.make("CartPole-v1")
    (obs, _), total, over = env.reset(seed=5), 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(trainer.policy.act(obs))
        total, over = total + reward, terminated or truncated
    assert evaluate(trainer.policy, "CartPole-v1", num_episodes=1, seed=5).item() == total


def test_what_a_user_calls_is_documented():
    for name in ("learn", "save", "load", "close", "collect", "update", "gradient", "loss"):
        assert inspect.getdoc(getattr(PPO, name))
