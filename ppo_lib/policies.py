"""Policies: what maps a state to a distribution of actions."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ppo_lib.distributions import Categorical, DiagonalGaussian, MultiCategorical
from ppo_lib.validate import check_finite


class Policy(nn.Module):
    """π_θ(a | s): ``forward(obs)`` gives the parameters of ``dist``, from which actions are drawn.

    A policy of one's own sets ``dist`` and implements ``forward``, from observations ``[..., *S]``
    of the environment's shape S and of ``obs_dtype`` to parameters ``[..., P]``.  Where actions are
    bounded it implements `in_bounds` too, with which `act` clips; in training the environments'
    own bounds are used.  Dropout and batch norm are off where actions are drawn and values
    estimated, and in the loss as the network says, by default on: the ratio of the first gradient
    step is then not 1.  Stable-Baselines3 does the same.
    """

    dist: type[Categorical] | MultiCategorical | type[DiagonalGaussian]
    obs_dtype = torch.float32  #: int64 where observations are states by number

    @torch.no_grad()
    def act(
        self,
        obs: np.ndarray | Tensor,
        *,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> np.ndarray:
        """Actions as the environment takes them, within its bounds.

        Args:
            obs: one observation, or a batch along a first axis.
            deterministic: take the most probable action (the mean of a Gaussian) instead of
                drawing one.
            generator: draws the actions; torch's own without it.

        Returns:
            An action, or a batch; int64, ``[..., D]`` int64 or float32, or as narrow as the space.

        Raises:
            ValueError: if an observation is not finite, or no integer where states are numbered,
                or what the policy makes of it is NaN.
        """
        given = torch.as_tensor(obs)
        numbered = not self.obs_dtype.is_floating_point
        # Not `require`: its messages would be written, at every step, to be thrown away.
        if numbered and given.is_floating_point():
            raise ValueError(f"obs is {obs}, expected integers")
        seen = given.to(device_of(self), self.obs_dtype)
        check_finite("obs", seen.cpu().numpy())
        with eval_mode(self):
            params = self(seen).cpu()
        if bool(params.isnan().any()):
            raise ValueError(f"dist_params is {params}, expected no NaN")
        actions = self.dist.mode(params) if deterministic else self.dist.sample(params, generator)
        # One of several actions is a number, which an environment may look up in a dictionary.
        return self.in_bounds(actions).numpy()[()]

    def in_bounds(self, actions: Tensor) -> Tensor:
        """What was drawn, as the environment takes it; a policy with bounds clips."""
        return actions


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Dropout and batch norm switched off, and back to what they were."""
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in before:  # parents come before their children
            if module.training != training:
                module.train(training)


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are; the CPU if it has none."""
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device
