"""Policies and critics: their weights at the start, their shapes, where randomness comes from."""

import pytest
import torch
from torch import nn

from ppo_lib.distributions import Categorical, DiagonalGaussian
from ppo_lib.exact.env import TabularPolicy
from ppo_lib.networks import CategoricalPolicy, Critic, GaussianPolicy, mlp
from ppo_lib.policies import eval_mode


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def networks(seed=0):
    return {
        "categorical": CategoricalPolicy(6, 3, (16, 8), generator(seed)),
        "gaussian": GaussianPolicy(6, 2, (16, 8), generator(seed)),
        "critic": Critic(6, (16, 8), generator(seed)),
    }


def test_policies_start_almost_uniform_and_centred():
    obs = 10 * torch.randn(500, 6, generator=generator(1))
    start = networks()
    probs = start["categorical"](obs).softmax(-1)
    assert (probs - 1 / 3).abs().max() < 0.03
    mean, log_std = start["gaussian"](obs).chunk(2, -1)
    assert mean.abs().max() < 0.1
    assert not log_std.any()


@pytest.mark.parametrize("batch", [(), (5,), (4, 5)])
def test_outputs_have_the_shape_of_the_batch(batch):
    obs = torch.randn(*batch, 6, generator=generator())
    start = networks()
    assert start["categorical"](obs).shape == (*batch, 3)
    assert start["gaussian"](obs).shape == (*batch, 4)
    assert start["critic"](obs).shape == batch


def test_a_gaussian_policy_that_knows_no_bounds_does_not_clip():
    policy, obs = networks()["gaussian"], torch.ones(6)
    with torch.no_grad():
        policy.net[-1].bias.copy_(torch.tensor([1e6, -1e6]))
        assert policy.act(obs).tolist() == policy(obs)[:2].tolist()


def test_policies_name_their_distribution():
    start = networks()
    assert TabularPolicy(2, 3).dist is start["categorical"].dist is Categorical
    assert start["gaussian"].dist is DiagonalGaussian


def test_the_spread_of_a_gaussian_policy_is_a_parameter_that_learns():
    policy = networks()["gaussian"]
    assert "log_std" in dict(policy.named_parameters())
    with torch.no_grad():
        policy.log_std += torch.tensor([1.0, -2.0])
    params = policy(torch.zeros(7, 6))
    assert params[:, 2:].tolist() == [[1.0, -2.0]] * 7
    DiagonalGaussian.entropy(params).sum().backward()
    assert policy.log_std.grad.tolist() == [7.0, 7.0]


def test_one_seed_gives_the_same_weights_and_another_others():
    first, same, other = networks(0), networks(0), networks(1)
    for name in first:
        pairs = zip(first[name].parameters(), same[name].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert not torch.equal(*(x[name].net[0].weight for x in (first, other)))


def test_the_global_generator_is_not_touched():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    start = networks()
    start["categorical"].dist.sample(torch.zeros(4, 3), generator())
    start["gaussian"].dist.sample(torch.zeros(4, 4), generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_tabular_policy_starts_uniform_and_is_a_softmax_of_its_logits():
    policy = TabularPolicy(4, 3)
    assert policy.probs().dtype == torch.float64
    torch.testing.assert_close(policy.probs(), torch.full((4, 3), 1 / 3, dtype=torch.float64))
    with torch.no_grad():
        # Weights 1 : 2 : 5.
        policy.logits[2] = torch.tensor([1.0, 2.0, 5.0]).log()
    assert policy.probs()[2].tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], rel=1e-7)
    states = torch.tensor([[0, 2], [2, 3]])
    assert policy(states).shape == (2, 2, 3)
    assert torch.equal(policy(states)[0, 1], policy.logits[2])


@pytest.mark.parametrize(
    ("name", "last_gain"), [("categorical", 0.01), ("gaussian", 0.01), ("critic", 1.0)]
)
def test_weights_start_orthogonal_and_biases_at_zero(name, last_gain):
    net = networks()[name].net
    assert [type(module) for module in net] == [nn.Linear, nn.Tanh] * 2 + [nn.Linear]
    layers = list(net)[::2]
    outputs = {"categorical": 3, "gaussian": 2, "critic": 1}[name]
    shapes = [(layer.in_features, layer.out_features) for layer in layers]
    assert shapes == [(6, 16), (16, 8), (8, outputs)]
    for layer, gain in zip(layers, (2**0.5, 2**0.5, last_gain), strict=True):
        weight = layer.weight.detach()
        product = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(
            product, gain**2 * torch.eye(len(product)), rtol=0, atol=1e-5 * gain**2
        )
        assert not layer.bias.any()


@pytest.mark.parametrize("sizes", [[0, 3], [3, 0, 2], [3, -1]])
def test_a_layer_of_no_width_is_refused(sizes):
    with pytest.raises(ValueError, match=r"sizes is \[.*\], expected each to be at least 1"):
        mlp(sizes, generator(), last_gain=1.0)


def test_a_network_without_hidden_layers_is_one_layer():
    net = mlp([3, 2], generator(), last_gain=1.0)
    assert [type(module) for module in net] == [nn.Linear]


def test_the_input_is_left_as_it_is():
    x = torch.randn(5, 6, generator=generator(2))
    before = x.clone()
    for network in networks().values():
        network(x).sum().backward()
    assert torch.equal(x, before)


def test_a_part_that_rests_goes_on_resting():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    network[1].eval()
    with eval_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, False]
