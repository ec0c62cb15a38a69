"""A fleet: S agents that learn side by side, each from its own steps.

What one agent does is a matter of microseconds that torch needs to begin; fifty take little
longer.  So all weights stand in one tensor more, ``[S, …]``, and nothing passes between agents.
A fleet of one takes the same steps as `PPO` (`tests/test_fleet.py`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from ppo_lib.book.worlds import World
from ppo_lib.config import PPOConfig
from ppo_lib.networks import make_networks
from ppo_lib.ppo import Batch


class Adam:
    """Adam on ``[S, …]`` parameters, with a rate for each agent; some may sit a step out."""

    def __init__(self, size: int) -> None:
        self.count = torch.zeros(size)
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self, params: dict[str, Tensor], rates: Tensor, acts: Tensor) -> None:
        """Move the parameters against their ``grad``.

        Args:
            params: ``[S, …]`` each.
            rates: ``[S]``.
            acts: ``[S]`` bool, False where an agent sits out.
        """
        self.count += acts
        count = self.count.clamp(min=1)
        for name, param in params.items():
            shape = (-1, *[1] * (param.ndim - 1))
            moves = acts.float().view(shape)
            m, v = self.moments.setdefault(name, (torch.zeros_like(param), torch.zeros_like(param)))
            m += 0.1 * moves * (param.grad - m)
            v += 0.001 * moves * (param.grad**2 - v)
            spread = (v / (1 - 0.999**count).view(shape)).sqrt() + 1e-5
            size = (rates * acts / (1 - 0.9**count)).view(shape)
            param -= size * m / spread


class Rollout(NamedTuple):
    """T steps of N environments of each agent."""

    obs: Tensor  #: ``[T, S, N, F]``
    actions: Tensor  #: ``[T, S, N, …]``
    dist_params: Tensor  #: ``[T, S, N, P]``
    rewards: Tensor  #: ``[T, S, N]``
    next_obs: Tensor  #: ``[T, S, N, F]``, what the step led to, before any reset
    terminated: Tensor  #: ``[T, S, N]`` bool
    truncated: Tensor  #: ``[T, S, N]`` bool


class Fleet:
    """S agents in a world.

    Args:
        world: where they act.
        config: every number of their training.
        seeds: of the initial weights, one for each agent, those that a `PPO` of that seed would
            have; the first is that of everything else that is drawn.

    Attributes:
        actor, critic: parameters by name, ``[S, …]``.
        generator: draws actions and minibatches.
    """

    def __init__(self, world: type[World], config: PPOConfig, seeds: tuple[int, ...]) -> None:
        self.world, self.config, self.size = world, config, len(seeds)
        with gym.make(world.env_id) as env:
            spaces = env.observation_space, env.action_space
        made = []
        for seed in seeds:
            dice = torch.Generator().manual_seed(seed)
            made.append(make_networks(*spaces, config.hidden_sizes, dice))
        self.modules = made[0]
        self.dist = made[0][0].dist
        self.actor, self.critic = (_stacked(networks) for networks in zip(*made, strict=True))
        self.generator = torch.Generator().manual_seed(seeds[0])
        self.dice = np.random.default_rng(seeds[0])
        self.adams = Adam(self.size), Adam(self.size)
        self.states = self._starts()
        self.counts = np.zeros(self.states.shape[1], dtype=np.int64)

    def policy(self, obs: Tensor) -> Tensor:
        """Parameters of the distributions ``[S, B, P]`` at observations ``[S, B, F]``."""
        return _apply(self.actor, obs)

    def value(self, obs: Tensor) -> Tensor:
        """Values ``[S, B]`` at observations ``[S, B, F]``."""
        return _apply(self.critic, obs).squeeze(-1)

    @torch.no_grad()
    def collect(self, playing: np.ndarray | None = None) -> Rollout:
        """The next T steps of all environments; or new episodes until all of some have ended.

        Args:
            playing: ``[S]`` bool, the agents whose episodes are waited for; without it the
                environments go on where they are, and T is ``config.num_steps``.
        """
        n, rows, limit = self.config.num_envs, [], self.world.limit()
        left = None if playing is None else playing.repeat(n)
        if left is not None:
            self.states, self.counts = self._starts(), np.zeros_like(self.counts)
        obs = self._see()
        while left.any() if left is not None else len(rows) < self.config.num_steps:
            params = self.policy(obs)
            actions = self.dist.sample(params, self.generator)
            states, rewards, died = self.world.moves(self.states, actions.flatten(0, 1).numpy())
            self.states, self.counts = states, self.counts + 1
            cut = (self.counts == limit) & ~died
            arrays = (torch.tensor(x).view(-1, n) for x in (np.float32(rewards), died, cut))
            reward, *flags = arrays
            next_obs = self._see()
            rows.append((obs, actions, params, reward, next_obs, *flags))
            obs, ended = next_obs, died | cut
            if ended.any():
                self.states = np.where(ended, self._starts(), self.states)
                self.counts[ended] = 0
                obs = self._see()
                if left is not None:
                    left &= ~ended
        return Rollout(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def batch(self, rollout: Rollout, advantages: Tensor, targets: Tensor) -> Batch:
        """The steps of a rollout, each agent's side by side, ``[S, T N, …]``."""
        columns = rollout.obs, rollout.actions, rollout.dist_params, advantages, targets
        obs, actions, params, *numbers = (x.transpose(0, 1).flatten(1, 2) for x in columns)
        log_probs = self.dist.log_prob(params, actions)
        return Batch(obs, actions, log_probs, params, torch.zeros_like(log_probs), *numbers)

    def minibatches(self, batch: tuple[Tensor, ...], last: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Each agent's rows in random order, ``config.minibatch_size`` at a time.

        Args:
            batch: columns ``[S, B, …]``.
            last: ``[S, B]`` bool, rows that are to come after all others: those of no step.
        """
        chance = torch.rand(last.shape, generator=self.generator) + 2 * last
        order = chance.argsort(dim=1)
        agents = torch.arange(self.size)[:, None]
        for rows in order.split(self.config.minibatch_size, dim=1):
            yield tuple(column[agents, rows] for column in batch)

    def descend(
        self, loss: Tensor, rates: Tensor, acts: Tensor, max_norm: float | None = None
    ) -> None:
        """One step of Adam for every network that the loss depends on.

        Args:
            loss: ``[S]``.
            rates: ``[S]``, learning rates.
            acts: ``[S]`` bool, False where an agent sits out.
            max_norm: a longer gradient, of actor and critic together, is scaled down to it.
        """
        loss.sum().backward()
        networks = self.actor, self.critic
        moved = [x for x in networks if next(iter(x.values())).grad is not None]
        grads = [param.grad for network in moved for param in network.values()]
        if max_norm is not None:
            squares = sum(grad.flatten(1).square().sum(dim=1) for grad in grads)
            scale = (max_norm / (squares.sqrt() + 1e-6)).clamp(max=1)
            for grad in grads:
                grad *= scale.view(-1, *[1] * (grad.ndim - 1))
        for network, adam in zip(networks, self.adams, strict=True):
            if any(network is x for x in moved):
                adam.step(network, rates, acts)
                for param in network.values():
                    param.grad = None

    def snapshot(
        self, old: dict[str, Tensor] | None = None, which: Tensor | None = None
    ) -> dict[str, Tensor]:
        """A copy of the actors; or some of them written over an older one."""
        now = {name: param.detach() for name, param in self.actor.items()}
        if old is None:
            return {name: param.clone() for name, param in now.items()}
        for name, param in now.items():
            old[name][... if which is None else which] = param if which is None else param[which]
        return old

    def _see(self) -> Tensor:
        return torch.from_numpy(self.world.sees(self.states)).unflatten(0, (self.size, -1))

    def _starts(self) -> np.ndarray:
        return self.world.starts(self.size * self.config.num_envs, self.dice)


@torch.no_grad()
def earned(
    fleet: Fleet, actors: dict[str, Tensor], episodes: int, dice: np.random.Generator
) -> Tensor:
    """Mean undiscounted returns of the most probable actions.

    Args:
        fleet: whose world and network it is.
        actors: parameters by name, ``[A, …]``, of any number A of policies.
        episodes: of each policy.
        dice: draws where the episodes start.

    Returns:
        ``[A]``.
    """
    size = len(next(iter(actors.values())))
    world, states = fleet.world, fleet.world.starts(size * episodes, dice)
    returns, playing = np.zeros(size * episodes), np.ones(size * episodes, dtype=bool)
    for _ in range(world.limit()):
        obs = torch.from_numpy(world.sees(states)).unflatten(0, (size, -1))
        actions = fleet.dist.mode(_apply(actors, obs))
        states, rewards, died = world.moves(states, actions.flatten(0, 1).numpy())
        returns += rewards * playing
        playing &= ~died
        if not playing.any():
            break
    return torch.tensor(returns).view(size, episodes).mean(dim=1)


def _stacked(networks: tuple[nn.Module, ...]) -> dict[str, Tensor]:
    named = [dict(network.named_parameters()) for network in networks]
    return {
        name: torch.stack([each[name].detach() for each in named]).requires_grad_()
        for name in named[0]
    }


def _apply(params: dict[str, Tensor], obs: Tensor) -> Tensor:
    """What the networks of `ppo_lib.networks` give, all at once: ``[S, B, P]``, or values."""
    names = [name.removesuffix("weight") for name in params if name.endswith("weight")]
    x = obs
    for name in names:
        x = x if name == names[0] else x.tanh()
        weight, bias = params[name + "weight"], params[name + "bias"]
        x = torch.baddbmm(bias[:, None], x, weight.mT)
    if "log_std" in params:
        x = torch.cat([x, params["log_std"][:, None].expand_as(x)], dim=-1)
    return x
