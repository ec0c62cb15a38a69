"""The multilayer perceptron against torch's own layers, one after another."""

import itertools

import pytest
import torch
from torch import nn

from ppo_lib.mlp import MLP
from ppo_lib.policies import CategoricalPolicy, Critic, GaussianPolicy

SIZES = [[6, 3], [6, 16, 3], [6, 16, 8, 3], [1, 5, 5, 5, 1]]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def net_and_layers(sizes, dtype=torch.float64):
    """An MLP with biases that are not 0, and torch's layers with the same parameters."""
    net = MLP(sizes, generator(), last_gain=1.0).to(dtype)
    with torch.no_grad():
        for layer in net.layers:
            layer.bias += torch.randn(layer.bias.shape, generator=generator(1))
    layers = []
    for layer in net.layers:
        own = nn.Linear(layer.in_features, layer.out_features, dtype=dtype)
        own.load_state_dict(layer.state_dict())
        layers += [own, nn.Tanh()]
    return net, nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("batch", [(), (1,), (7,), (4, 3), (0,), (2, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_are_those_of_torchs_layers(sizes, batch, dtype):
    net, layers = net_and_layers(sizes, dtype)
    x = torch.randn(*batch, sizes[0], generator=generator(2), dtype=dtype).requires_grad_()
    tolerance = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 1e-5}
    outputs = [net(x), layers(x)]
    assert outputs[0].shape == (*batch, sizes[-1])
    torch.testing.assert_close(*outputs, **tolerance)
    with torch.no_grad():
        assert torch.equal(net(x), outputs[0])
    weights = torch.randn(outputs[0].shape, generator=generator(3), dtype=dtype)
    for (name, _), found, expected in zip(
        [("x", x), *net.named_parameters()],
        *(
            torch.autograd.grad((weights * y).sum(), [x, *module.parameters()])
            for y, module in zip(outputs, (net, layers), strict=True)
        ),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, msg=name, **tolerance)


def test_the_gradient_is_the_slope():
    net, _ = net_and_layers([3, 4, 4, 2])
    x = torch.randn(5, 3, generator=generator(2), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(net, x)


def test_a_second_derivative_is_refused():
    net, _ = net_and_layers([3, 4, 2])
    x = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="create_graph is True, expected False"):
        torch.autograd.grad(net(x).sum(), x, create_graph=True)


def test_a_parameter_that_was_changed_before_the_gradient_is_refused():
    net, _ = net_and_layers([3, 4, 2])
    loss = net(torch.ones(1, 3, dtype=torch.float64)).sum()
    with torch.no_grad():
        net.layers[1].weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_functional_call_computes_with_the_parameters_that_it_is_given():
    net, layers = net_and_layers([3, 4, 2])
    others = {name: torch.randn_like(p) for name, p in net.named_parameters()}
    for i, own in enumerate(layers[::2]):
        own.load_state_dict({k: others[f"layers.{i}.{k}"] for k in ("weight", "bias")})
    x = torch.ones(5, 3, dtype=torch.float64)
    for p in others.values():
        p.requires_grad_()
    found = torch.func.functional_call(net, others, x)
    torch.testing.assert_close(found, layers(x), rtol=0, atol=1e-12)
    slopes = torch.autograd.grad(found.sum(), list(others.values()))
    expected = torch.autograd.grad(layers(x).sum(), list(layers.parameters()))
    torch.testing.assert_close(slopes, expected, rtol=0, atol=1e-12)


def test_gradients_of_each_row_and_second_derivatives_by_torch_func():
    net, layers = net_and_layers([3, 4, 2])
    x = torch.randn(5, 3, generator=generator(2), dtype=torch.float64)
    parameters = dict(net.named_parameters())

    def output(parameters, row):
        return torch.func.functional_call(net, parameters, row).sum()

    rows = torch.func.vmap(torch.func.grad(output), (None, 0))(parameters, x)
    for i, row in enumerate(x):
        expected = torch.autograd.grad(layers(row).sum(), list(layers.parameters()))
        torch.testing.assert_close(tuple(p[i] for p in rows.values()), expected)
    found = torch.func.jacrev(torch.func.grad(output, argnums=1), argnums=1)(parameters, x[0])
    second = torch.autograd.functional.hessian(lambda row: layers(row).sum(), x[0])
    torch.testing.assert_close(found, second)


def test_the_input_is_left_as_it_is():
    net, _ = net_and_layers([3, 4, 4, 2])
    x = torch.randn(5, 3, generator=generator(2), dtype=torch.float64)
    before = x.clone()
    net(x).sum().backward()
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("network", "last_gain"),
    [
        (CategoricalPolicy(6, 3, (16, 8), generator()), 0.01),
        (GaussianPolicy(6, 2, (16, 8), generator()), 0.01),
        (Critic(6, (16, 8), generator()), 1.0),
    ],
)
def test_weights_start_orthogonal_and_biases_at_zero(network, last_gain):
    layers = network.net.layers
    widths = [layer.in_features for layer in layers]
    assert widths == [6, 16, 8]
    assert all(a.out_features == b.in_features for a, b in itertools.pairwise(layers))
    for layer, gain in zip(layers, (2**0.5, 2**0.5, last_gain), strict=True):
        weight = layer.weight.detach()
        product = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(
            product, gain**2 * torch.eye(len(product)), rtol=0, atol=1e-5 * gain**2
        )
        assert not layer.bias.any()


@pytest.mark.parametrize("sizes", [[0, 3], [3, 0, 2], [3, -1]])
def test_a_layer_of_no_width_is_refused(sizes):
    with pytest.raises(ValueError, match=r"sizes is \[.*\], expected every layer"):
        MLP(sizes, generator(), last_gain=1.0)
