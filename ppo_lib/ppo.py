"""The trainer: what the book assembles, with every number of it in one configuration."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from ppo_lib.envs import make_envs
from ppo_lib.history import History
from ppo_lib.normalizers import ObsNormalizer, RewardNormalizer
from ppo_lib.objectives import (
    adapt_kl_coef,
    clipped_surrogate_loss,
    explained_variance,
    kl_k3,
    kl_penalty_loss,
    normalize_advantages,
    ratio_statistics,
    value_loss,
)
from ppo_lib.optimizer import Adam
from ppo_lib.policies import CategoricalPolicy, Critic, GaussianPolicy, Policy
from ppo_lib.progress import progress_bar
from ppo_lib.ranks import from_first_rank, gather_columns, num_ranks, rank, sum_over_ranks
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
    """N, environments stepped together, over all ranks; a multiple of the number of ranks."""
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
    loss: Literal["clip", "kl"] = "clip"
    """What restrains the policy: "clip", the clipped surrogate, or "kl", the penalty β KL."""
    clip_range: float = 0.2
    """ε, how far the ratio may go before its incentive ends; above 0."""
    anneal_clip_range: bool = False
    """Lower ε linearly, from update to update, towards 0 at the end."""
    kl_coef: float = 1.0
    """β of the loss "kl", at the first update; at least 0."""
    kl_target: float = 0.01
    """The KL divergence of an update that β is adapted to, once an update; above 0."""
    max_kl: float | None = None
    """End an update before a gradient step whose minibatch shows a larger KL; above 0; or None."""
    normalize_advantages: bool = True
    """Standardise the advantages of each minibatch."""
    normalize_obs: bool = False
    """Standardise observations by their running mean and standard deviation."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of their discounted sum."""
    vf_coef: float = 1.0
    """Weight of the value loss, half a mean squared error; at least 0."""
    value_clip_range: float | None = None
    """How far a value may move from the old one in the value loss; above 0; or None."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus; at least 0."""
    max_grad_norm: float = 0.5
    """The gradient of actor and critic together is scaled down to this norm; above 0."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers, of actor and critic alike; each at least 1."""
    seed: int = 0
    """Of the initial weights, the actions, the minibatches and the environments; at least 0."""
    device: str = "cpu"
    """Where the networks are: "cpu", or "cuda" for a GPU; environments always run on the CPU."""

    def __post_init__(self) -> None:
        whole_at_least_one = ("total_steps", "num_envs", "num_steps", "num_epochs")
        for name in (*whole_at_least_one, "minibatch_size"):
            self._refuse(name, lambda x: _is_int(x) and x >= 1, "an integer of at least 1")
        self._refuse("seed", lambda x: _is_int(x) and x >= 0, "an integer of at least 0")
        for name in ("gamma", "gae_lambda"):
            self._refuse(name, lambda x: _is_real(x) and 0 <= x <= 1, "a number in [0, 1]")
        for name in ("learning_rate", "clip_range", "kl_target", "max_grad_norm"):
            self._refuse(name, lambda x: _is_real(x) and 0 < x < math.inf, "a number above 0")
        for name in ("max_kl", "value_clip_range"):
            self._refuse(
                name, lambda x: x is None or (_is_real(x) and 0 < x < math.inf), "a number above 0"
            )
        for name in ("kl_coef", "vf_coef", "ent_coef"):
            self._refuse(
                name, lambda x: _is_real(x) and 0 <= x < math.inf, "a number of at least 0"
            )
        for name in ("anneal_learning_rate", "anneal_clip_range"):
            self._refuse(name, lambda x: isinstance(x, bool), "True or False")
        for name in ("normalize_advantages", "normalize_obs", "normalize_rewards"):
            self._refuse(name, lambda x: isinstance(x, bool), "True or False")
        self._refuse("loss", lambda x: x in ("clip", "kl"), "'clip' or 'kl'")
        self._refuse("device", _is_device, "'cpu', or 'cuda' where torch finds a GPU")
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


class Batch(NamedTuple):
    """The B steps of an update that this rank has."""

    obs: Tensor  #: ``[B, D]``
    actions: Tensor  #: ``[B, …]``
    log_probs: Tensor  #: ``[B]``, log π_θ'(a | s) of the policy that drew the actions
    dist_params: Tensor  #: ``[B, P]``, its parameters
    values: Tensor  #: ``[B]``, V_φ(s) before the update
    returns: Tensor  #: ``[B]``, what V_φ is trained towards


class Seen(NamedTuple):
    """What a gradient step has seen of the B steps that this rank has, without gradients."""

    policy_loss: Tensor  #: scalar
    value_loss: Tensor  #: scalar
    dist_params: Tensor  #: ``[B, P]``
    log_probs: Tensor  #: ``[B]``, log π_θ(a | s)
    old_log_probs: Tensor  #: ``[B]``, log π_θ'(a | s)


class PPO:
    """Proximal policy optimisation (eq-e13 or eq-e12; arXiv:1707.06347).

    Args:
        env_id: a gymnasium id, ``"CartPole-v1"`` say, with observations in a Box of one
            dimension and actions that are Discrete or in a Box of one dimension.
        config: every number that training depends on.
        env_kwargs: passed to each environment.

    Attributes:
        policy: π_θ, the actor.
        critic: V_φ.
        history: a row for every update so far.
        env_steps: environment steps taken so far, by all ranks.
        kl_coef: β of the next update.

    Raises:
        ValueError: if the environment's spaces are not supported, or its copies can't be
            shared out evenly among the ranks.
    """

    def __init__(self, env_id: str, config: PPOConfig | None = None, **env_kwargs: Any) -> None:
        self.config = c = config or PPOConfig()
        self.env_id, self.env_kwargs = env_id, env_kwargs
        require(
            c.num_envs % num_ranks() == 0,
            f"num_envs is {c.num_envs}, expected a multiple of the number of ranks, {num_ranks()}",
        )
        # Drawn on the CPU, whatever the device: one seed is one agent.
        self.generator = torch.Generator().manual_seed(c.seed)
        self.envs = make_envs(env_id, c.num_envs // num_ranks(), **env_kwargs)
        self.collector = Collector(self.envs, seed=c.seed)
        networks = make_networks(self.envs, c.hidden_sizes, self.generator)
        self.obs_normalizer: ObsNormalizer | None = None
        if c.normalize_obs:
            self.obs_normalizer = ObsNormalizer(self.envs.single_observation_space.shape[0])
            for network in networks:
                network.net = nn.Sequential(self.obs_normalizer, network.net)
        self.reward_normalizer: RewardNormalizer | None = None
        if c.normalize_rewards:
            self.reward_normalizer = RewardNormalizer(self.envs.num_envs, gamma=c.gamma)
        self.policy, self.critic = (network.to(c.device) for network in networks)
        self.parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = Adam(self.parameters)
        from_first_rank(self.optimizer.vector)
        self.kl_coef = c.kl_coef
        self.history = History()
        self.env_steps = 0

    def learn(self, *callbacks: Callable[["PPO"], bool | None]) -> History:
        """Train for what is left of ``total_steps``.

        Args:
            callbacks: each is called after every update with the trainer; training stops once
                one returns True (on every rank, if there are several), and a later call of
                `learn` goes on from there.

        Returns:
            The history, a row an update; see `History`.
        """
        c = self.config
        with progress_bar(total=c.num_updates * c.batch_size, done=self.env_steps) as bar:
            while self.env_steps < c.num_updates * c.batch_size:
                started = time.perf_counter()
                rollout = self.collector.collect(self.policy, c.num_steps, self.generator)
                row = self._update(rollout)
                self.env_steps += c.batch_size
                row["env_steps"] = self.env_steps
                row["steps_per_second"] = c.batch_size / (time.perf_counter() - started)
                self.history.append(row, rollout)
                bar.update(c.batch_size)
                bar.set_postfix(episode_return=f"{self.history.recent_return():.1f}")
                answers = [callback(self) for callback in callbacks]
                if any(answers):
                    break
        return self.history

    @property
    def _learning_rate(self) -> float:
        return self.config.learning_rate * (self._left if self.config.anneal_learning_rate else 1)

    @property
    def _clip_range(self) -> float:
        return self.config.clip_range * (self._left if self.config.anneal_clip_range else 1)

    @property
    def _left(self) -> float:
        """The share of the updates that are still to be done."""
        return 1 - self.env_steps // self.config.batch_size / self.config.num_updates

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Several epochs of minibatch gradient steps; the means of what was seen on the way."""
        c = self.config
        normalizer = self.reward_normalizer
        with torch.no_grad():
            values, next_values = (
                self.critic(obs.to(c.device)).cpu() for obs in (rollout.obs, rollout.next_obs)
            )
        advantages, returns = gae(
            rollout.rewards if normalizer is None else normalizer(rollout),
            values,
            next_values,
            rollout.terminated,
            rollout.truncated,
            gamma=c.gamma,
            gae_lambda=c.gae_lambda,
        )
        old = rollout.obs, rollout.actions, rollout.log_probs, rollout.dist_params
        batch = Batch(*(x.flatten(0, 1).to(c.device) for x in (*old, values, returns)))
        # Of all ranks, since a minibatch is drawn, and its advantages normalised, among all.
        advantages, values, returns = (gather_columns(x) for x in (advantages, values, returns))
        norms, seen = self._descend(batch, advantages.flatten().to(c.device))
        row = self._statistics(seen) | {"grad_norm": sum(norms) / len(norms)}
        row["gradient_steps"] = len(norms)
        row["explained_variance"] = explained_variance(values, returns)
        row["learning_rate"], row["clip_range"] = self._learning_rate, self._clip_range
        if c.loss == "kl":
            row["kl_coef"] = self.kl_coef
            self.kl_coef = adapt_kl_coef(self.kl_coef, self._kl(batch), kl_target=c.kl_target)
        if self.obs_normalizer is not None:
            self.obs_normalizer.update(rollout.obs.to(c.device))
        return row

    def _descend(self, batch: Batch, advantages: Tensor) -> tuple[list[float], list[Seen]]:
        """The gradient steps of one update: the length of every gradient, and what was seen.

        Args:
            batch: the steps of this rank.
            advantages: ``[T N]``, of all ranks.
        """
        c = self.config
        norms: list[float] = []
        seen: list[Seen] = []
        for _ in range(c.num_epochs):
            for index in minibatches(c.batch_size, c.minibatch_size, self.generator):
                weights = advantages[index]
                if c.normalize_advantages:
                    weights = normalize_advantages(weights)
                gradient, step = self._gradient(batch, index, weights)
                if c.max_kl is not None and norms and self._approx_kl(step) > c.max_kl:
                    return norms, seen
                norms.append(
                    self.optimizer.step(
                        gradient, learning_rate=self._learning_rate, max_norm=c.max_grad_norm
                    )
                )
                seen.append(step)
        return norms, seen

    def _gradient(self, batch: Batch, index: Tensor, weights: Tensor) -> tuple[Tensor, Seen]:
        """The gradient of the loss of one minibatch, and what was seen of this rank's steps.

        Args:
            batch: the steps of this rank.
            index: ``[B]``, the numbers of the minibatch's steps among those of all ranks.
            weights: ``[B]``, their advantages.
        """
        if num_ranks() == 1:
            return self._own_gradient(batch, index, weights)
        index, mine = _own_steps(index, self.config.num_envs)
        gradient, seen = self._own_gradient(batch, index, weights[mine])
        # A minibatch's mean is the mean of the ranks' means, by their shares.
        return sum_over_ranks(gradient * (len(index) / len(mine))), seen

    def _own_gradient(self, batch: Batch, index: Tensor, weights: Tensor) -> tuple[Tensor, Seen]:
        """The same of this rank alone, 0 where it has no step of the minibatch."""
        if len(index) == 0:
            zero, none = weights.new_zeros(()), batch.log_probs[index]
            seen = Seen(zero, zero, batch.dist_params[index], none, none)
            return torch.zeros_like(self.optimizer.vector), seen
        loss, seen = self._loss(batch, index, weights)
        return self.optimizer.gradient(loss), seen

    def _loss(self, batch: Batch, index: Tensor, advantages: Tensor) -> tuple[Tensor, Seen]:
        """The loss of actor and critic together (eq-ppo-loss), of the steps in ``index``."""
        c, dist = self.config, self.policy.dist
        obs, old_log_probs = batch.obs[index], batch.log_probs[index]
        params = self.policy(obs)
        log_probs = dist.log_prob(params, batch.actions[index])
        weighted = log_probs, old_log_probs, advantages
        if c.loss == "clip":
            policy_loss = clipped_surrogate_loss(*weighted, clip_range=self._clip_range)
        else:
            kl = dist.kl(batch.dist_params[index], params)
            policy_loss = kl_penalty_loss(*weighted, kl, kl_coef=self.kl_coef)
        old_values = None if c.value_clip_range is None else batch.values[index]
        critic_loss = value_loss(
            self.critic(obs), batch.returns[index], old_values, clip_range=c.value_clip_range
        )
        loss = policy_loss + c.vf_coef * critic_loss
        if c.ent_coef > 0:
            loss = loss - c.ent_coef * dist.entropy(params).mean()
        seen = policy_loss, critic_loss, params, log_probs, old_log_probs
        return loss, Seen(*(x.detach() for x in seen))

    @torch.no_grad()
    def _approx_kl(self, step: Seen) -> float:
        """The divergence that a minibatch shows, of all ranks."""
        k3 = kl_k3(step.log_probs, step.old_log_probs)
        total, count = sum_over_ranks(torch.stack([k3.sum(), torch.ones_like(k3).sum()]))
        return (total / count).item()

    @torch.no_grad()
    def _statistics(self, seen: list[Seen]) -> dict[str, float]:
        """Means over the steps of all minibatches of an update, of all ranks.

        Taken once an update and not once a minibatch: many small operations become a few.
        """
        policy_losses, value_losses, *columns = zip(*seen, strict=True)
        params, *both = (torch.cat(column) for column in columns)
        sizes = params.new_tensor([len(step.log_probs) for step in seen])
        count = sizes.sum()
        means = {
            "policy_loss": sizes @ torch.stack(policy_losses) / count,
            "value_loss": sizes @ torch.stack(value_losses) / count,
            "entropy": self.policy.dist.entropy(params).mean(),
        } | ratio_statistics(*both, clip_range=self._clip_range)
        sums = torch.stack([*means.values(), torch.ones_like(count)]) * count
        if num_ranks() > 1:
            # Nothing divided by nothing is no number; a rank that had no step adds nothing.
            sums = sum_over_ranks(sums if count > 0 else torch.zeros_like(sums))
        return dict(zip(means, (sums[:-1] / sums[-1]).tolist(), strict=True))

    @torch.no_grad()
    def _kl(self, batch: Batch) -> float:
        """The mean KL(π_θ' ‖ π_θ) over the states of an update."""
        kl = self.policy.dist.kl(batch.dist_params, self.policy(batch.obs)).mean()
        return sum_over_ranks(kl).item() / num_ranks()


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


def _own_steps(index: Tensor, num_envs: int) -> tuple[Tensor, Tensor]:
    """Which steps of a minibatch this rank has.

    Args:
        index: ``[B]``, numbers of steps among the T N of all ranks.
        num_envs: N.

    Returns:
        Their numbers among the steps of this rank, and ``[B]`` bool, True for those.
    """
    columns = num_envs // num_ranks()
    row, column = index // num_envs, index % num_envs - rank() * columns
    mine = (column >= 0) & (column < columns)
    return (row * columns + column)[mine], mine


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    # Not numpy's float32, nor a tensor: a checkpoint could not be read back.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_device(value: object) -> bool:
    return value == "cpu" or (value == "cuda" and torch.cuda.is_available())
