"""Networks that fit an environment's spaces: multilayer perceptrons for actor and critic."""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from ppo_lib.distributions import Categorical, DiagonalGaussian, MultiCategorical
from ppo_lib.envs import actions_in, narrow_dtype
from ppo_lib.normalizers import ObsNormalizer
from ppo_lib.policies import Policy, eval_mode
from ppo_lib.validate import check_params, require


class OneHot(nn.Module):
    """States by number, ``[...]`` int64, as rows ``[..., size]`` float32 of one 1 and else 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, obs: Tensor) -> Tensor:
        """The row of each state."""
        return nn.functional.one_hot(obs, self.size).float()


class CategoricalPolicy(Policy):
    """A multilayer perceptron that gives the logits of A actions.

    Args:
        obs_dim: the number of features of an observation.
        num_actions: A.
        hidden_sizes: the widths of the hidden layers.
        generator: draws the initial weights.

    ``forward`` takes observations ``[..., obs_dim]`` float32 and gives logits ``[..., A]``.
    """

    dist = Categorical
    action_dtype = torch.int64  #: that of the action space, where it holds no int64

    def __init__(
        self,
        obs_dim: int,
        num_actions: int,
        hidden_sizes: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.net = mlp([obs_dim, *hidden_sizes, num_actions], generator, last_gain=0.01)

    def forward(self, obs: Tensor) -> Tensor:
        """The logits of the actions."""
        return self.net(obs)

    def in_bounds(self, actions: Tensor) -> Tensor:
        """Of ``action_dtype``."""
        return actions.to(self.action_dtype)


class MultiCategoricalPolicy(CategoricalPolicy):
    """A multilayer perceptron that gives the logits of D independent choices.

    Args:
        obs_dim: the number of features of an observation.
        sizes: among how many actions each choice is.
        hidden_sizes: the widths of the hidden layers.
        generator: draws the initial weights.

    ``forward`` takes observations ``[..., obs_dim]`` float32 and gives logits ``[..., Σ sizes]``.
    """

    def __init__(
        self,
        obs_dim: int,
        sizes: Sequence[int],
        hidden_sizes: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        super().__init__(obs_dim, sum(sizes), hidden_sizes, generator)
        self.dist = MultiCategorical(sizes)


class GaussianPolicy(Policy):
    """A multilayer perceptron that gives the means of D normal numbers; their spread is free.

    Args:
        obs_dim: the number of features of an observation.
        action_dim: D.
        hidden_sizes: the widths of the hidden layers.
        generator: draws the initial weights.

    Attributes:
        low, high: ``[D]``, the bounds that `act` clips to; -∞ and ∞ until they are set.

    The D logarithms of the standard deviations are parameters that do not depend on the
    observation; they start at 0.  ``forward`` takes observations ``[..., obs_dim]`` float32 and
    gives means and log standard deviations, ``[..., 2 D]``.
    """

    dist = DiagonalGaussian
    action_dtype = torch.float32  #: that of the action space, where it holds no float32
    low: Tensor
    high: Tensor

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden_sizes: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.net = mlp([obs_dim, *hidden_sizes, action_dim], generator, last_gain=0.01)
        self.log_std = nn.Parameter(torch.zeros(action_dim))
        self.register_buffer("low", torch.full((action_dim,), -torch.inf))
        self.register_buffer("high", torch.full((action_dim,), torch.inf))

    def forward(self, obs: Tensor) -> Tensor:
        """The means, then the log standard deviations."""
        mean = self.net(obs)
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=-1)

    def in_bounds(self, actions: Tensor) -> Tensor:
        """Clipped to ``low`` and ``high``, and of ``action_dtype``."""
        return actions.clamp(self.low.cpu(), self.high.cpu()).to(self.action_dtype)


class Critic(nn.Module):
    """V_φ(s): a multilayer perceptron with one output.

    Args:
        obs_dim: the number of features of an observation.
        hidden_sizes: the widths of the hidden layers.
        generator: draws the initial weights.

    ``forward`` takes observations ``[..., obs_dim]`` float32 and gives values ``[...]``.
    """

    def __init__(
        self, obs_dim: int, hidden_sizes: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.net = mlp([obs_dim, *hidden_sizes, 1], generator, last_gain=1.0)

    def forward(self, obs: Tensor) -> Tensor:
        """The values of the observations."""
        return self.net(obs).squeeze(-1)


def mlp(sizes: Sequence[int], generator: torch.Generator, *, last_gain: float) -> nn.Sequential:
    """Linear layers with tanh between them, orthogonal weights and zero biases.

    Args:
        sizes: the number of inputs, of each hidden layer's units, and of outputs; at least 1.
        generator: draws the weights.
        last_gain: the scale of the last layer; the others have √2.  At 0.01 a policy starts
            almost uniform (arXiv:2006.05990).
    """
    require(min(sizes) >= 1, f"sizes is {list(sizes)}, expected each to be at least 1")
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes), start=2):
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        gain = last_gain if i == len(sizes) else 2**0.5
        nn.init.orthogonal_(linear.weight, gain, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def own_networks(policy: Policy | None, critic: nn.Module | None) -> list[str]:
    """Which of the two somebody has given, "policy" or "critic"; refused unless they are modules.

    Raises:
        ValueError: if one is a class, say, or the policy has no ``dist``.
    """
    require(
        policy is None or (isinstance(policy, nn.Module) and hasattr(policy, "dist")),
        f"policy is {policy!r}, expected a Policy, made, that has a dist: Categorical, "
        "MultiCategorical(sizes), DiagonalGaussian or one of your own",
    )
    require(
        critic is None or isinstance(critic, nn.Module),
        f"critic is {critic!r}, expected a module, made",
    )
    own = {"policy": policy, "critic": critic}
    return [name for name, network in own.items() if network is not None]


@torch.no_grad()
def check_networks(
    policy: Policy,
    critic: nn.Module,
    obs: Tensor,
    action_space: gym.Space[Any],
    *,
    normalize_obs: bool,
) -> None:
    """Refuse networks that do not give what is expected for N observations.

    Raises:
        ValueError: if the critic does not give N values, or the policy, for actions by number,
            not as many logits as there are; if a value, or the log-probability of an action, is
            not finite; if what the policy's ``dist`` draws is no action; or if one of them does
            not normalise observations and should.
    """
    for name, network in {"policy": policy, "critic": critic}.items():
        require(
            not normalize_obs or any(isinstance(m, ObsNormalizer) for m in network.modules()),
            f"normalize_obs is True, expected False with a {name} of your own that holds no "
            "ppo_lib.normalizers.ObsNormalizer",
        )
    with eval_mode(policy), eval_mode(critic):
        params, values = policy(obs), critic(obs)
    require(
        values.shape == obs.shape[:1],
        f"critic gives values of shape {tuple(values.shape)}, expected {tuple(obs.shape[:1])}",
    )
    width = params.shape[-1]
    if isinstance(action_space, gym.spaces.Discrete):
        width = int(action_space.n)
    elif isinstance(action_space, gym.spaces.MultiDiscrete):
        width = int(action_space.nvec.sum())
    require(
        params.shape == (len(obs), width),
        f"policy gives parameters of shape {tuple(params.shape)}, expected {(len(obs), width)} for "
        f"action_space {action_space}",
    )
    check_params(params)
    require(bool(values.isfinite().all()), f"critic gives {values}, expected finite numbers")
    if isinstance(policy.dist, MultiCategorical) and hasattr(action_space, "nvec"):
        found, expected = policy.dist.sizes, action_space.nvec.tolist()
        require(found == expected, f"policy has a dist of sizes {found}, expected {expected}")
    drawn = policy.dist.sample(params.cpu(), torch.Generator())
    require(
        bool(policy.dist.log_prob(params.cpu(), drawn).isfinite().all()),
        f"dist_params is {params}, expected a distribution of actions, each of a finite log π(a|s)",
    )
    for action in actions_in(action_space, drawn):
        require(
            action_space.contains(action),
            f"the policy has drawn the action {action}, expected one of {action_space}",
        )


def make_networks(
    obs_space: gym.Space[Any],
    action_space: gym.Space[Any],
    hidden_sizes: Sequence[int],
    generator: torch.Generator,
    *,
    normalize_obs: bool = False,
) -> tuple[Policy, Critic]:
    """The actor and the critic that fit an environment's spaces.

    Args:
        obs_space: a Box of one dimension, or a Discrete from 0.
        action_space: Discrete from 0, MultiDiscrete of one dimension from 0, or a Box of one
            dimension.
        hidden_sizes: widths of the hidden layers of both networks.
        generator: draws the initial weights, the actor's first.
        normalize_obs: put one `ObsNormalizer` before the layers of both; not for a Discrete.

    Returns:
        A `CategoricalPolicy` for Discrete actions, a `MultiCategoricalPolicy` for MultiDiscrete
        ones or a `GaussianPolicy` for a Box, and a critic.
        For states by number a `OneHot` is the first layer of both.

    Raises:
        ValueError: if a space is another one.
    """
    numbered = isinstance(obs_space, gym.spaces.Discrete)
    require(
        numbered or (isinstance(obs_space, gym.spaces.Box) and len(obs_space.shape) == 1),
        f"observation_space is {obs_space}, expected a Discrete or a Box of one dimension, which "
        "gymnasium.wrappers.FlattenObservation makes, or networks of your own",
    )
    require(
        not (numbered and normalize_obs),
        f"normalize_obs is True, expected False for observation_space {obs_space}: "
        "the number of a state has no mean",
    )
    obs_dim = int(obs_space.n) if numbered else obs_space.shape[0]
    policy: Policy
    if isinstance(action_space, gym.spaces.Discrete):
        policy = CategoricalPolicy(obs_dim, int(action_space.n), hidden_sizes, generator)
    else:
        several = isinstance(action_space, gym.spaces.MultiDiscrete)
        require(
            (several or isinstance(action_space, gym.spaces.Box)) and len(action_space.shape) == 1,
            f"action_space is {action_space}, expected a Discrete, or a MultiDiscrete or a Box of "
            "one dimension",
        )
        if several:
            sizes = action_space.nvec.tolist()
            policy = MultiCategoricalPolicy(obs_dim, sizes, hidden_sizes, generator)
        else:
            _check_scale(action_space)
            policy = GaussianPolicy(obs_dim, action_space.shape[0], hidden_sizes, generator)
            low, high = torch.as_tensor(action_space.low), torch.as_tensor(action_space.high)
            policy.low.copy_(_inside(low, torch.inf))
            policy.high.copy_(_inside(high, -torch.inf))
    narrow = narrow_dtype(action_space)
    if narrow is not None:
        policy.action_dtype = torch.as_tensor(np.empty(0, narrow)).dtype
    critic = Critic(obs_dim, hidden_sizes, generator)
    if numbered:
        policy.obs_dtype = torch.int64
    if numbered or normalize_obs:
        first = OneHot(obs_dim) if numbered else ObsNormalizer(obs_dim)
        for network in (policy, critic):
            network.net = nn.Sequential(first, *network.net)
    return policy, critic


def _inside(bounds: Tensor, towards: float) -> Tensor:
    """Bounds in float32, where that would round them outwards the next number inwards."""
    rounded = bounds.float()
    outside = (rounded < bounds) if towards > 0 else (rounded > bounds)
    return torch.where(outside, rounded.nextafter(torch.tensor(towards)), rounded)


def _check_scale(space: gym.spaces.Box) -> None:
    """Warn of bounds that a policy which starts as a standard normal number hardly meets.

    That is where fewer than 5% of the numbers that it draws are within them, or they are more
    than 20 of its standard deviations apart.
    """
    low, high = (torch.as_tensor(x, dtype=torch.float64) for x in (space.low, space.high))
    inside = torch.special.ndtr(high) - torch.special.ndtr(low)
    width = high - low
    wide = width.isfinite() & (width > 20)
    if bool(((inside < 0.05) | wide).any()):
        warnings.warn(
            f"action_space is {space}, but a policy starts at mean 0 and standard deviation 1, and "
            "is clipped to the bounds, never scaled: it may not learn. "
            "gymnasium.wrappers.RescaleAction(env, min_action=-1.0, max_action=1.0) scales",
            stacklevel=5,  # where PPO is called
        )
