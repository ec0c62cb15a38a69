"""Policies and critics: what maps a state to a distribution of actions, and to a value."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppo_lib.distributions import Categorical, DiagonalGaussian
from ppo_lib.mlp import MLP


class Policy(nn.Module):
    """π_θ(a | s): ``forward(obs)`` gives the parameters of ``dist``, from which actions are drawn.

    Subclasses set ``dist`` and implement ``forward``.
    """

    dist: type[Categorical] | type[DiagonalGaussian]


class TabularPolicy(Policy):
    """A softmax over A logits of its own in each of S states (eq-a2).

    Args:
        num_states: S.
        num_actions: A.
        dtype: float64 by default, so that derivations can be checked to rounding.

    ``forward`` takes states ``[...]`` int64 and gives logits ``[..., A]``.
    """

    dist = Categorical

    def __init__(
        self, num_states: int, num_actions: int, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_states, num_actions, dtype=dtype))

    def forward(self, obs: Tensor) -> Tensor:
        """The logits of the given states."""
        return self.logits[obs]

    def probs(self) -> Tensor:
        """π_θ(a | s) of all states, ``[S, A]``, for the exact world."""
        return self.logits.softmax(-1)


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

    def __init__(
        self,
        obs_dim: int,
        num_actions: int,
        hidden_sizes: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.net = MLP([obs_dim, *hidden_sizes, num_actions], generator, last_gain=0.01)

    def forward(self, obs: Tensor) -> Tensor:
        """The logits of the actions."""
        return self.net(obs)


class GaussianPolicy(Policy):
    """A multilayer perceptron that gives the means of D normal numbers; their spread is free.

    Args:
        obs_dim: the number of features of an observation.
        action_dim: D.
        hidden_sizes: the widths of the hidden layers.
        generator: draws the initial weights.

    The D logarithms of the standard deviations are parameters that do not depend on the
    observation; they start at 0.  ``forward`` takes observations ``[..., obs_dim]`` float32 and
    gives means and log standard deviations, ``[..., 2 D]``.
    """

    dist = DiagonalGaussian

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden_sizes: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.net = MLP([obs_dim, *hidden_sizes, action_dim], generator, last_gain=0.01)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def forward(self, obs: Tensor) -> Tensor:
        """The means, then the log standard deviations."""
        mean = self.net(obs)
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=-1)


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
        self.net = MLP([obs_dim, *hidden_sizes, 1], generator, last_gain=1.0)

    def forward(self, obs: Tensor) -> Tensor:
        """The values of the observations."""
        return self.net(obs).squeeze(-1)
