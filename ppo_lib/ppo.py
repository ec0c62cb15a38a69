"""The trainer: what the book assembles, with every number of it in one configuration."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from ppo_lib.envs import make_envs
from ppo_lib.history import History
from ppo_lib.objectives import (
    clipped_surrogate_loss,
    explained_variance,
    normalize_advantages,
    value_loss,
)
from ppo_lib.policies import CategoricalPolicy, Critic, GaussianPolicy, Policy
from ppo_lib.progress import progress_bar
from ppo_lib.returns import gae
from ppo_lib.rollout import Collector, Rollout
from ppo_lib.validate import require


@dataclass(frozen=True)
class PPOConfig:
    """Every number that training depends on, refused at once when out of range.

    One *update* collects ``num_steps`` × ``num_envs`` steps and passes over them ``num_epochs``
    times, in minibatches of ``minibatch_size``.
    """

    total_steps: int = 100_000
    """Environment steps in all; rounded down to whole updates; at least one update."""
    num_envs: int = 8
    """N, environments stepped together; at least 1."""
    num_steps: int = 64
    """T, steps in each environment before an update; at least 1."""
    num_epochs: int = 4
    """Passes over the data of one update; at least 1."""
    minibatch_size: int = 128
    """Steps in one gradient step, at most T N; the last minibatch of an epoch may be smaller."""
    learning_rate: float = 2e-3
    """Of Adam, at the first update; above 0."""
    anneal_learning_rate: bool = True
    """Lower the learning rate linearly, from update to update, towards 0 at the end."""
    gamma: float = 0.98
    """The discount γ, in [0, 1]."""
    gae_lambda: float = 0.95
    """λ of the advantage estimate, in [0, 1]."""
    clip_range: float = 0.2
    """ε, how far the ratio may go before its incentive ends; above 0."""
    normalize_advantages: bool = True
    """Standardise the advantages of each minibatch."""
    vf_coef: float = 1.0
    """Weight of the value loss, half a mean squared error; at least 0."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus; at least 0."""
    max_grad_norm: float = 0.5
    """The gradient of actor and critic together is scaled down to this norm; above 0."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers, of actor and critic alike; each at least 1."""
    seed: int = 0
    """Of the initial weights, the actions, the minibatches and the environments; at least 0."""

    def __post_init__(self) -> None:
        whole_at_least_one = ("total_steps", "num_envs", "num_steps", "num_epochs")
        for name in (*whole_at_least_one, "minibatch_size"):
            self._refuse(name, lambda x: _is_int(x) and x >= 1, "an integer of at least 1")
        self._refuse("seed", lambda x: _is_int(x) and x >= 0, "an integer of at least 0")
        for name in ("gamma", "gae_lambda"):
            self._refuse(name, lambda x: 0 <= x <= 1, "a number in [0, 1]")
        for name in ("learning_rate", "clip_range", "max_grad_norm"):
            self._refuse(name, lambda x: 0 < x < float("inf"), "a number above 0")
        for name in ("vf_coef", "ent_coef"):
            self._refuse(name, lambda x: 0 <= x < float("inf"), "a number of at least 0")
        for name in ("anneal_learning_rate", "normalize_advantages"):
            self._refuse(name, lambda x: isinstance(x, bool), "True or False")
        self._refuse(
            "hidden_sizes",
            lambda x: isinstance(x, tuple) and all(_is_int(width) and width >= 1 for width in x),
            "a tuple of integers of at least 1",
        )
        self._refuse(
            "minibatch_size",
            lambda x: x <= self.batch_size,
            f"at most num_steps × num_envs = {self.batch_size}",
        )
        self._refuse(
            "total_steps",
            lambda x: x >= self.batch_size,
            f"at least num_steps × num_envs = {self.batch_size}",
        )

    def _refuse(self, name: str, valid: Callable[[Any], bool], expected: str) -> None:
        value = getattr(self, name)
        try:
            right = valid(value)
        except TypeError:
            right = False
        require(right, f"{name} is {value!r}, expected {expected}")

    @property
    def batch_size(self) -> int:
        """Steps in one update, T N."""
        return self.num_steps * self.num_envs

    @property
    def num_updates(self) -> int:
        """Updates in all."""
        return self.total_steps // self.batch_size


class PPO:
    """Proximal policy optimisation with the clipped surrogate (eq-e13; arXiv:1707.06347).

    Args:
        env_id: a gymnasium id, ``"CartPole-v1"`` say, with observations in a Box of one
            dimension and actions that are Discrete or in a Box of one dimension.
        config: every number that training depends on.
        env_kwargs: passed to each environment.

    Attributes:
        policy: π_θ, the actor.
        critic: V_φ.
        history: a row for every update so far.
        env_steps: environment steps taken so far.

    Raises:
        ValueError: if the environment's spaces are not supported.
    """

    def __init__(self, env_id: str, config: PPOConfig | None = None, **env_kwargs: object) -> None:
        self.config = config or PPOConfig()
        self.generator = torch.Generator().manual_seed(self.config.seed)
        self.envs = make_envs(env_id, self.config.num_envs, **env_kwargs)
        self.collector = Collector(self.envs, seed=self.config.seed)
        self.policy, self.critic = make_networks(
            self.envs, self.config.hidden_sizes, self.generator
        )
        self.parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, self.config.learning_rate, eps=1e-5)
        self.history = History()
        self.env_steps = 0

    def learn(self, callback: Callable[["PPO"], bool | None] | None = None) -> History:
        """Train for what is left of ``total_steps``.

        Args:
            callback: called after every update with the trainer; training stops once it
                returns True, and a later call of `learn` goes on from there.

        Returns:
            The history, a row an update; see `History`.
        """
        c = self.config
        with progress_bar(total=c.num_updates * c.batch_size, done=self.env_steps) as bar:
            while self.env_steps < c.num_updates * c.batch_size:
                started = time.perf_counter()
                self._anneal()
                rollout = self.collector.collect(self.policy, c.num_steps, self.generator)
                self.env_steps += c.batch_size
                row = self._update(rollout)
                row["env_steps"] = self.env_steps
                row["steps_per_second"] = c.batch_size / (time.perf_counter() - started)
                self.history.append(row, rollout)
                bar.update(c.batch_size)
                bar.set_postfix(episode_return=f"{self.history.recent_return():.1f}")
                if callback is not None and callback(self):
                    break
        return self.history

    def _anneal(self) -> None:
        c = self.config
        done = self.env_steps // c.batch_size / c.num_updates
        rate = c.learning_rate * (1 - done) if c.anneal_learning_rate else c.learning_rate
        self.optimizer.param_groups[0]["lr"] = rate

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Several epochs of minibatch gradient steps; the means of what was seen on the way."""
        c = self.config
        with torch.no_grad():
            values, next_values = self.critic(rollout.obs), self.critic(rollout.next_obs)
        advantages, returns = gae(
            rollout.rewards,
            values,
            next_values,
            rollout.terminated,
            rollout.truncated,
            gamma=c.gamma,
            gae_lambda=c.gae_lambda,
        )
        batch = [
            x.flatten(0, 1)
            for x in (rollout.obs, rollout.actions, rollout.log_probs, advantages, returns)
        ]
        seen = [
            self._step(*(x[index] for x in batch))
            for _ in range(c.num_epochs)
            for index in minibatches(c.batch_size, c.minibatch_size, self.generator)
        ]
        row = {name: sum(step[name] for step in seen) / len(seen) for name in seen[0]}
        row["explained_variance"] = explained_variance(values, returns)
        row["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        return row

    def _step(
        self,
        obs: Tensor,
        actions: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> dict[str, float]:
        """One gradient step on one minibatch, ``[B, …]``."""
        c = self.config
        if c.normalize_advantages:
            advantages = normalize_advantages(advantages)
        params = self.policy(obs)
        log_probs = self.policy.dist.log_prob(params, actions)
        policy_loss, info = clipped_surrogate_loss(
            log_probs, old_log_probs, advantages, clip_range=c.clip_range
        )
        critic_loss = value_loss(self.critic(obs), returns)
        entropy = self.policy.dist.entropy(params).mean()
        loss = policy_loss + c.vf_coef * critic_loss - c.ent_coef * entropy
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, c.max_grad_norm)
        self.optimizer.step()
        return info | {
            "policy_loss": policy_loss.item(),
            "value_loss": critic_loss.item(),
            "entropy": entropy.item(),
            "grad_norm": norm.item(),
        }


def make_networks(
    envs: VectorEnv, hidden_sizes: tuple[int, ...], generator: torch.Generator
) -> tuple[Policy, Critic]:
    """The actor and the critic that fit an environment's spaces.

    Args:
        envs: a vector environment with observations in a Box of one dimension.
        hidden_sizes: widths of the hidden layers of both networks.
        generator: draws the initial weights, the actor's first.

    Returns:
        A `CategoricalPolicy` for Discrete actions or a `GaussianPolicy` for a Box, and a critic.
    """
    obs_space, action_space = envs.single_observation_space, envs.single_action_space
    require(
        isinstance(obs_space, gym.spaces.Box) and len(obs_space.shape) == 1,
        f"observation_space is {obs_space}, expected a Box of one dimension; "
        "gymnasium.wrappers.FlattenObservation makes one",
    )
    obs_dim = obs_space.shape[0]
    policy: Policy
    if isinstance(action_space, gym.spaces.Discrete):
        policy = CategoricalPolicy(obs_dim, int(action_space.n), hidden_sizes, generator)
    else:
        require(
            isinstance(action_space, gym.spaces.Box) and len(action_space.shape) == 1,
            f"action_space is {action_space}, expected a Discrete or a Box of one dimension",
        )
        policy = GaussianPolicy(obs_dim, action_space.shape[0], hidden_sizes, generator)
    return policy, Critic(obs_dim, hidden_sizes, generator)


def minibatches(batch_size: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The numbers 0 to ``batch_size`` - 1 in random order, ``size`` at a time.

    Args:
        batch_size: how many steps there are.
        size: how many go into one minibatch; the last one may be smaller.
        generator: draws the order.

    Yields:
        ``[size]`` int64.
    """
    yield from torch.randperm(batch_size, generator=generator).split(size)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
