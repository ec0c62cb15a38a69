"""Action distributions, as functions of one tensor of parameters.

A policy maps an observation to such a tensor; a rollout stores it; the KL divergence of two
policies is a function of two of them.  Plain functions and no objects: they run in the inner
loop of the trainer.  A logit of -∞ forbids its action, and 0 log 0 is 0.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ppo_lib.validate import require, same_shape


class Categorical:
    """A choice among A actions.  ``params``: logits ``[..., A]``; actions: ``[...]`` int64."""

    @staticmethod
    def sample(params: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an action from each distribution, ``[...]`` int64.

        The one whose exponential waiting time, of rate π(a), is the shortest.
        """
        if params.dtype.itemsize < 4:  # in which a time may be 0, and 0 / 0 is NaN
            params = params.float()
        times = params.new_empty(params.shape).exponential_(generator=generator)
        return (params.softmax(-1) / times).argmax(-1)

    @staticmethod
    def mode(params: Tensor) -> Tensor:
        """The most probable action, ``[...]`` int64; the first of several."""
        return params.argmax(-1)

    @staticmethod
    def log_prob(params: Tensor, actions: Tensor) -> Tensor:
        """log π(a), ``[...]``."""
        _check_actions(actions, params.shape[:-1])
        return params.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def entropy(params: Tensor) -> Tensor:
        """H = -Σ_a π(a) log π(a) in nats, ``[...]``, from 0 to log A."""
        log_probs = params.log_softmax(-1)
        return -(log_probs.exp() * log_probs.masked_fill(log_probs.isinf(), 0.0)).sum(-1)

    @staticmethod
    def kl(old_params: Tensor, params: Tensor) -> Tensor:
        """KL(old ‖ new) = Σ_a π_old(a) log(π_old(a) / π_new(a)) in nats, ``[...]``."""
        same_shape(old_params=old_params, params=params)
        old_log_probs = old_params.log_softmax(-1)
        apart = old_log_probs - params.log_softmax(-1)
        return (old_log_probs.exp() * apart.masked_fill(old_log_probs.isinf(), 0.0)).sum(-1)


class MultiCategorical:
    """D independent choices, the d-th among ``sizes[d]``; an object, since params don't tell them.

    ``params``: ``[..., Σ_d sizes[d]]``, the logits of each choice after those of the one before;
    actions: ``[..., D]`` int64.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = [int(size) for size in sizes]
        valid = len(self.sizes) > 0 and min(self.sizes) >= 1
        require(valid, f"sizes is {self.sizes}, expected at least one, each at least 1")

    def sample(self, params: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an action from each distribution, ``[..., D]`` int64."""
        choices = [Categorical.sample(logits, generator) for logits in self._split(params)]
        return torch.stack(choices, dim=-1)

    def mode(self, params: Tensor) -> Tensor:
        """The most probable action, ``[..., D]`` int64."""
        return torch.stack([Categorical.mode(logits) for logits in self._split(params)], dim=-1)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """log π(a) = Σ_d log π_d(a_d), ``[...]``: independent probabilities are multiplied."""
        _check_actions(actions, torch.Size([*params.shape[:-1], len(self.sizes)]))
        each = zip(self._split(params), actions.unbind(-1), strict=True)
        return torch.stack([Categorical.log_prob(*one) for one in each]).sum(0)

    def entropy(self, params: Tensor) -> Tensor:
        """Σ_d H_d in nats, ``[...]``."""
        return torch.stack([Categorical.entropy(logits) for logits in self._split(params)]).sum(0)

    def kl(self, old_params: Tensor, params: Tensor) -> Tensor:
        """KL(old ‖ new) = Σ_d KL(old_d ‖ new_d) in nats, ``[...]``."""
        same_shape(old_params=old_params, params=params)
        each = zip(self._split(old_params), self._split(params), strict=True)
        return torch.stack([Categorical.kl(*one) for one in each]).sum(0)

    def _split(self, params: Tensor) -> tuple[Tensor, ...]:
        width = params.shape[-1]
        require(width == sum(self.sizes), f"params has width {width}, expected {sum(self.sizes)}")
        return params.split(self.sizes, dim=-1)


class DiagonalGaussian:
    """D independent normal numbers.

    ``params``: ``[..., 2 D]``, the D means, then the D logarithms of the standard deviations;
    actions: ``[..., D]``, as drawn and never clipped.
    """

    @staticmethod
    def sample(params: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an action from each distribution, ``[..., D]``."""
        mean, log_std = _halves(params)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + log_std.exp() * noise

    @staticmethod
    def mode(params: Tensor) -> Tensor:
        """The mean, ``[..., D]``."""
        return _halves(params)[0]

    @staticmethod
    def log_prob(params: Tensor, actions: Tensor) -> Tensor:
        """The logarithm of the density, summed over the D numbers, ``[...]``."""
        mean, log_std = _halves(params)
        _check_actions(actions, mean.shape)
        z = (actions - mean) / log_std.exp()
        return -(0.5 * z**2 + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    @staticmethod
    def entropy(params: Tensor) -> Tensor:
        """Σ_d (log σ_d + ½ log 2πe) in nats, ``[...]``; below 0 for a narrow one."""
        _, log_std = _halves(params)
        return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    @staticmethod
    def kl(old_params: Tensor, params: Tensor) -> Tensor:
        """KL(old ‖ new) in nats, ``[...]``, summed over the D numbers."""
        same_shape(old_params=old_params, params=params)
        (old_mean, old_log_std), (mean, log_std) = _halves(old_params), _halves(params)
        spread = (2 * (old_log_std - log_std)).exp()
        shift = ((old_mean - mean) / log_std.exp()) ** 2
        return (log_std - old_log_std + 0.5 * (spread + shift - 1)).sum(-1)


def _halves(params: Tensor) -> tuple[Tensor, ...]:
    require(params.shape[-1] % 2 == 0, f"params has width {params.shape[-1]}, expected 2 D")
    return params.chunk(2, dim=-1)


def _check_actions(actions: Tensor, expected: torch.Size) -> None:
    if actions.shape != expected:
        raise ValueError(f"actions has shape {tuple(actions.shape)}, expected {tuple(expected)}")
