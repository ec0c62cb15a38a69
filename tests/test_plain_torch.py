"""The networks and the trainer keep torch's contracts: what is done to a module is learned with."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, parametrizations, prune, vector_to_parameters

from ppo_lib import PPO, Policy, PPOConfig, evaluate
from ppo_lib.distributions import Categorical
from ppo_lib.networks import CategoricalPolicy

SMALL = PPOConfig(
    total_steps=96, num_envs=4, num_steps=8, minibatch_size=8, num_epochs=2, hidden_sizes=(8, 8)
)
WORLDS = {"CartPole-v1": 4, "Pendulum-v1": 3}
both_worlds = pytest.mark.parametrize("env_id", WORLDS)


def make(env_id="CartPole-v1", **changes):
    return PPO(env_id, dataclasses.replace(SMALL, **changes))


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def moved(before, module):
    """Which parameters are others than before."""
    return [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]


def written_out(policy, obs):
    """tanh(… tanh(x W₁ + b₁) … ) W + b by plain operations, and the free spread of a Gaussian."""
    *hidden, last = (layer for layer in policy.net if isinstance(layer, nn.Linear))
    for layer in hidden:
        z = obs @ layer.weight.T + layer.bias
        obs = (z.exp() - (-z).exp()) / (z.exp() + (-z).exp())
    outputs = obs @ last.weight.T + last.bias
    if not hasattr(policy, "log_std"):
        return outputs
    return torch.cat([outputs, policy.log_std.expand_as(outputs)], dim=-1)


def some_obs(env_id, rows=5):
    return torch.randn(rows, WORLDS[env_id], generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------ copies, dtypes, vectors


@both_worlds
def test_a_deep_copy_learns_by_itself_and_what_the_first_one_learns(env_id):
    first = make(env_id, normalize_obs=True, normalize_rewards=True)
    first.learn(lambda _: True)
    second = copy.deepcopy(first)
    before = weights(first.policy)
    assert second.learn(lambda _: True)["grad_norm"][-1] > 0
    assert all(moved(before, second.policy))
    assert not any(moved(before, first.policy))
    # And nothing is shared: environments, random numbers, Adam's moments.
    first.learn()
    second.learn()
    for a, b in zip(first.parameters, second.parameters, strict=True):
        assert torch.equal(a, b)
        assert a is not b


@both_worlds
@pytest.mark.parametrize("when", ["before", "between"])
def test_networks_that_were_float64_for_a_while_learn(env_id, when):
    trainer, alone = make(env_id), make(env_id)
    if when == "between":
        for each in (trainer, alone):
            each.learn(lambda _: True)
    for network in (trainer.policy, trainer.critic):
        network.double()
        assert network(some_obs(env_id).double()).dtype == torch.float64
        network.float()
    before = weights(trainer.policy)
    trainer.learn()
    alone.learn()
    assert all(moved(before, trainer.policy))
    for a, b in zip(trainer.parameters, alone.parameters, strict=True):
        assert torch.equal(a, b)


def test_parameters_that_were_written_from_a_vector_are_learned_on():
    trainer, other = make(), make(seed=1)
    vector = parameters_to_vector(other.policy.parameters()).detach()
    # The parameters become parts of what is given.
    vector_to_parameters(vector.clone(), trainer.policy.parameters())
    obs = some_obs("CartPole-v1")
    assert torch.equal(trainer.policy(obs), other.policy(obs))
    before = trainer.policy(obs).detach()
    trainer.learn()
    assert not torch.equal(parameters_to_vector(trainer.policy.parameters()), vector)
    assert not torch.equal(trainer.policy(obs), before)


# ------------------------------------------------------------------ what torch makes of a network


@both_worlds
def test_a_network_is_its_formula(env_id):
    policy, obs = make(env_id).policy, some_obs(env_id)
    torch.testing.assert_close(policy(obs), written_out(policy, obs))


@both_worlds
@pytest.mark.parametrize("normalized", [False, True])
def test_an_exported_network_computes_the_same(env_id, normalized):
    trainer = make(env_id, normalize_obs=normalized)
    trainer.learn()
    policy, obs = trainer.policy, 0.3 * some_obs(env_id)
    rows = {"obs": {0: torch.export.Dim.DYNAMIC}}
    exported = torch.export.export(policy, (obs,), dynamic_shapes=rows).module()
    for batch in (obs, 0.3 * some_obs(env_id, rows=9)):
        torch.testing.assert_close(exported(batch), policy(batch))
    if not normalized:
        torch.testing.assert_close(exported(obs), written_out(policy, obs))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
@both_worlds
def test_a_traced_network_computes_the_same_tanh_included(env_id):
    trainer = make(env_id)
    trainer.learn()
    policy, obs = trainer.policy, some_obs(env_id)
    traced = torch.jit.trace(policy, obs)
    for batch in (obs, 3 * some_obs(env_id, rows=9)):
        torch.testing.assert_close(traced(batch), policy(batch))
        torch.testing.assert_close(traced(batch), written_out(policy, batch))


@both_worlds
def test_networks_run_in_bfloat16_where_torch_chooses_it(env_id):
    trainer, obs = make(env_id), some_obs(env_id)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, values = trainer.policy.net(obs), trainer.critic(obs)
    assert found.dtype == values.dtype == torch.bfloat16
    # 8 bits are left of each number.
    exact = written_out(trainer.policy, obs)[:, : found.shape[1]]
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.01)


def test_functions_of_torch_transform_a_network():
    policy, obs = make().policy, some_obs("CartPole-v1")
    parameters = {name: p.detach() for name, p in policy.named_parameters()}

    def first_logit(parameters, x):
        return torch.func.functional_call(policy, parameters, (x,))[0]

    found = torch.func.vmap(torch.func.grad(first_logit), in_dims=(None, 0))(parameters, obs)
    for i, x in enumerate(obs):
        own = torch.autograd.grad(policy(x)[0], list(policy.parameters()))
        for name, expected in zip(parameters, own, strict=True):
            torch.testing.assert_close(found[name][i], expected)


def test_a_network_can_be_differentiated_twice():
    # tanh'' = -2 tanh (1 - tanh²): of one hidden layer the second derivative is a sum over units.
    policy = CategoricalPolicy(4, 2, (16,), torch.Generator().manual_seed(0))
    obs = some_obs("CartPole-v1")[0].requires_grad_()
    found = torch.autograd.functional.hessian(lambda x: policy(x)[0], obs)
    first, _, last = policy.net
    h = torch.tanh(first.weight @ obs + first.bias)
    bend = last.weight[0] * -2 * h * (1 - h**2)
    torch.testing.assert_close(found, first.weight.T @ torch.diag(bend) @ first.weight)


# ------------------------------------------------------------------ what is done to a layer


def test_hooks_fire_at_every_look_and_at_every_gradient_step():
    trainer, fired = make(), {"forward": 0, "backward": 0}

    def count(name):
        def hook(*_):
            fired[name] += 1

        return hook

    trainer.policy.net[2].register_forward_hook(count("forward"))
    trainer.policy.net[2].register_full_backward_hook(count("backward"))
    trainer.learn(lambda _: True)
    # To act 8 times, and in 2 epochs of 4 minibatches.
    assert fired == {"forward": 8 + 8, "backward": 8}


@pytest.mark.parametrize("when", ["before", "between"])
def test_pruned_weights_stay_0_and_the_others_learn(when):
    trainer = make()
    if when == "between":
        trainer.learn(lambda _: True)
    layer = trainer.policy.net[2]
    prune.l1_unstructured(layer, "weight", amount=0.5)
    gone = layer.weight_mask == 0
    assert gone.sum() == 32
    before = layer.weight.detach().clone()
    trainer.learn()
    after = trainer.policy.net[2].weight.detach()
    assert not after[gone].any()
    assert (after[~gone] != before[~gone]).all()
    assert len(trainer.history) == 3


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_layer_with_weight_norm_learns_length_and_direction(when):
    trainer, obs = make(), some_obs("CartPole-v1")
    if when == "between":
        trainer.learn(lambda _: True)
    plain = trainer.policy(obs).detach()
    parametrizations.weight_norm(trainer.policy.net[2])
    torch.testing.assert_close(trainer.policy(obs), plain)
    before = weights(trainer.policy)
    assert len(before) == 7
    trainer.learn()
    assert all(moved(before, trainer.policy))


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_frozen_layer_stays_and_the_others_learn(when):
    trainer = make()
    if when == "between":
        trainer.learn(lambda _: True)
    trainer.policy.net[2].requires_grad_(False)
    before = weights(trainer.policy)
    trainer.learn()
    # Weight and bias of three layers; the second one is frozen.
    assert moved(before, trainer.policy) == [True, True, False, False, True, True]


def test_a_frozen_layer_that_is_thawed_learns_again():
    trainer = make()
    trainer.policy.net[2].requires_grad_(False)
    trainer.learn(lambda _: True)
    trainer.policy.net[2].requires_grad_(True)
    before = weights(trainer.policy)
    trainer.learn()
    assert all(moved(before, trainer.policy))


@pytest.mark.parametrize("when", ["before", "between"])
def test_layers_that_replace_others_learn_and_the_critic_goes_on(when):
    trainer, plain = make(), make()
    if when == "between":
        trainer.learn(lambda _: True)
    replaced = trainer.policy.net[0].weight
    old = replaced.detach().clone()
    torch.manual_seed(0)
    trainer.policy.net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    before, critic = weights(trainer.policy), weights(trainer.critic)
    known = [len(trainer.optimizer.state[p]) for p in trainer.critic.parameters()]
    trainer.learn()
    assert all(moved(before, trainer.policy))
    assert all(moved(critic, trainer.critic))
    assert torch.equal(replaced, old)
    # What Adam knew of the critic was kept: its steps are those of all updates.
    assert known == ([3] * 6 if when == "between" else [0] * 6)
    plain.learn()
    for p, q in zip(trainer.critic.parameters(), plain.critic.parameters(), strict=True):
        assert trainer.optimizer.state[p]["step"] == plain.optimizer.state[q]["step"] == 24


def test_an_optimizer_of_ones_own_is_stepped():
    trainer = make()
    trainer.optimizer = torch.optim.SGD(trainer.policy.parameters(), lr=0.1)
    policy, critic = weights(trainer.policy), weights(trainer.critic)
    trainer.update(trainer.collect())
    assert all(moved(policy, trainer.policy))
    assert not any(moved(critic, trainer.critic))


# ------------------------------------------------------------------ shared layers


class Actor(Policy):
    """Logits on features that the critic shares."""

    dist = Categorical

    def __init__(self, features):
        super().__init__()
        self.features, self.head = features, nn.Linear(8, 2)

    def forward(self, obs):
        return self.head(self.features(obs))


class Value(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.features, self.head = features, nn.Linear(8, 1)

    def forward(self, obs):
        return self.head(self.features(obs)).squeeze(-1)


def test_layers_that_actor_and_critic_share_are_stepped_once_with_both_gradients():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
    trainer = PPO("CartPole-v1", SMALL, policy=Actor(features), critic=Value(features))
    assert [tuple(p.shape) for p in trainer.parameters] == [
        *((8, 4), (8,)),
        *((2, 8), (2,)),
        *((1, 8), (1,)),
    ]
    trainer.learn()
    assert {float(state["step"]) for state in trainer.optimizer.state.values()} == {24.0}
    assert trainer.policy.features is trainer.critic.features
    assert evaluate(trainer.policy, "CartPole-v1", num_episodes=2, seed=0).min() >= 8
