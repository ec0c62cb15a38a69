"""The trainer: what the book assembles."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from ppo_lib import checkpoint
from ppo_lib.config import PPOConfig, config_for
from ppo_lib.envs import MakeEnv, Wrapper, close_envs, make_envs, processes_told
from ppo_lib.history import History, progress_bar
from ppo_lib.networks import check_networks, make_networks, own_networks
from ppo_lib.normalizers import ObsNormalizer, RewardNormalizer
from ppo_lib.objectives import (
    adapt_kl_coef,
    clipped_surrogate_loss,
    explained_variance,
    importance_ratio,
    kl_k3,
    kl_penalty_loss,
    normalize_advantages,
    value_loss,
)
from ppo_lib.policies import Policy, eval_mode
from ppo_lib.returns import gae
from ppo_lib.rollout import Collector, Rollout
from ppo_lib.validate import asks_to_stop, require


class Batch(NamedTuple):
    """B steps to learn from."""

    obs: Tensor  #: ``[B, …]``
    actions: Tensor  #: ``[B, …]``
    log_probs: Tensor  #: ``[B]``, log π_θ'(a | s) of the policy that drew the actions
    dist_params: Tensor  #: ``[B, P]``, its parameters
    values: Tensor  #: ``[B]``, V_φ(s) before the update
    advantages: Tensor  #: ``[B]``, Â
    returns: Tensor  #: ``[B]``, what V_φ is trained towards


class Step(NamedTuple):
    """What a gradient step has seen of its B steps, without gradients, for the history."""

    policy_loss: Tensor  #: ``[B]``, the minibatch's, at each of its steps
    value_loss: Tensor  #: ``[B]``, likewise
    dist_params: Tensor  #: ``[B, P]``, of π_θ(· | s)
    log_probs: Tensor  #: ``[B]``, log π_θ(a | s)
    old_log_probs: Tensor  #: ``[B]``, log π_θ'(a | s)


class PPO:
    """Proximal policy optimisation (eq-e13 or eq-e12; arXiv:1707.06347).

    Args:
        env: a gymnasium id, ``"CartPole-v1"`` say; a callable that makes an environment; or a
            vector environment of ``config.num_envs`` copies, which resets at the next step or
            never by itself.
        config: every number that training depends on; without it `settings` of the id, or the
            defaults.
        env_kwargs: passed to each environment; only with an id.
        wrappers: put round each environment, the first one innermost; classes of
            ``gymnasium.wrappers``, or pairs of such a class and a dictionary of its arguments,
            which a checkpoint can name.  With others, give a callable as ``env``.
        policy: a network of your own, see `Policy`; without it one is made for the spaces.
        critic: a module from observations ``[..., *S]`` to values ``[...]``, likewise.

    Attributes:
        policy: π_θ, the actor.
        critic: V_φ.
        optimizer: torch's Adam, on the parameters of both.
        envs: the environments that it learns in.
        history: a row for every update so far.
        env_steps: steps of the environments so far; where one resets itself that counts as one.
        kl_coef: β of the next update.

    Raises:
        ValueError: if spaces are not supported, a wrapper or an argument could not be written
            into a checkpoint, or what was given does not fit together.
    """

    rank, num_ranks = 0, 1  #: see `ParallelPPO`
    anew = ""  #: why the episodes of a loaded trainer begin anew; empty where they go on

    def __init__(
        self,
        env: str | MakeEnv | VectorEnv,
        config: PPOConfig | None = None,
        *,
        env_kwargs: dict[str, Any] | None = None,
        wrappers: Sequence[Wrapper | tuple[Wrapper, dict[str, Any]]] = (),
        policy: Policy | None = None,
        critic: nn.Module | None = None,
    ) -> None:
        self.config = c = config_for(env, config, wrappers)
        self.env_name = checkpoint.name_env(env, env_kwargs, wrappers)
        require(
            c.num_envs % self.num_ranks == 0,
            f"num_envs is {c.num_envs}, expected a multiple of the number of ranks, "
            f"{self.num_ranks}",
        )
        self.envs = make_envs(
            env,
            c.num_envs // self.num_ranks,
            env_kwargs=env_kwargs,
            wrappers=wrappers,
            vectorization=c.vectorization,
        )
        try:
            self._set_up(policy, critic)
        except BaseException:  # nothing that was opened here stays open
            if self.envs is not env:
                self.close()
            raise

    def learn(
        self, *callbacks: Callable[["PPO"], bool | None], show_progress: bool = True
    ) -> History:
        """Train for what is left of ``total_steps``.

        Args:
            callbacks: each is called after every update with the trainer; training stops once
                one returns True (others None or False), and a later call of `learn` goes on from
                there.
            show_progress: draw a bar in a terminal and in a notebook.

        Returns:
            The history, a row an update; see `History`.
        """
        c, threads = self.config, torch.get_num_threads()
        total = c.num_updates * c.batch_size
        torch.set_num_threads(c.num_threads)
        try:
            with progress_bar(total, self.env_steps, wanted=show_progress) as bar:
                while self.env_steps < total:
                    started = time.perf_counter()
                    rollout = self.collect()
                    row = self.update(rollout)
                    self.env_steps += c.batch_size
                    seconds = time.perf_counter() - started
                    row |= {"env_steps": self.env_steps, "steps_per_second": c.batch_size / seconds}
                    self.history.append(row, rollout)
                    bar.update(c.batch_size)
                    bar.set_postfix(episode_return=f"{self.history.recent_return():.1f}")
                    if any([asks_to_stop(callback(self)) for callback in callbacks]):  # noqa: C419
                        break
        finally:
            torch.set_num_threads(threads)
        return self.history

    def collect(self) -> Rollout:
        """The next T steps of all environments, by the policy as it is."""
        with processes_told(self.envs):
            return self.collector.collect(self.policy, self.config.num_steps, self.generator)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Epochs of minibatch gradient steps on what was collected; a row for the history.

        Raises:
            ValueError: if a gradient is not finite; no parameter has changed in its step.
        """
        c = self.config
        self._follow_parameters()
        with torch.no_grad(), eval_mode(self.critic):
            values = self.critic(rollout.obs.to(c.device)).cpu()
            next_values = self.critic(rollout.next_obs.to(c.device)).cpu()
        rewards, ended = rollout.rewards, rollout.terminated | rollout.truncated
        if self.reward_normalizer is not None:
            rewards = self.reward_normalizer(rewards, ended, rollout.mask)
        advantages, returns = gae(
            rewards,
            values,
            next_values,
            rollout.terminated,
            rollout.truncated | ~rollout.mask,
            gamma=c.gamma,
            gae_lambda=c.gae_lambda,
        )
        old = rollout.obs, rollout.actions, rollout.log_probs, rollout.dist_params
        columns = (*old, values, advantages, returns)
        batch = Batch(*(column[rollout.mask].to(c.device) for column in columns))

        if self.optimizer is self._made_optimizer:  # another one's rates are its owner's
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate
        parameters = self.parameters
        steps: list[Step] = []
        norms: list[float] = []
        for minibatch in self._minibatches_of_all_epochs(batch):
            step = self.gradient(minibatch)
            if c.target_kl is not None and steps:
                approx_kl = self.mean(kl_k3(step.log_probs, step.old_log_probs))
                if approx_kl > c.target_kl:
                    break
            norm = nn.utils.clip_grad_norm_(parameters, c.max_grad_norm)
            require(
                bool(norm.isfinite()),
                f"the gradient has length {norm}, expected a finite one: "
                "a smaller learning_rate or normalize_rewards may help",
            )
            self.optimizer.step()
            steps.append(step)
            norms.append(float(norm))

        row = self._statistics(steps) | {
            "grad_norm": sum(norms) / len(norms),
            "gradient_steps": len(norms),
            "explained_variance": explained_variance(batch.values, batch.returns),
            "learning_rate": self.learning_rate,
            "clip_range": self.clip_range,
        }
        if self.reward_normalizer is not None:
            cut = rewards[rollout.mask].abs() >= self.reward_normalizer.limit
            row["reward_clip_fraction"] = cut.float().mean().item()
        if c.loss == "kl":
            row["kl_coef"] = self.kl_coef
            with torch.no_grad(), eval_mode(self.policy):
                kl = self.policy.dist.kl(batch.dist_params, self.policy(batch.obs)).mean().item()
            self.kl_coef = adapt_kl_coef(self.kl_coef, kl, kl_target=c.adaptive_kl_target)
        for normalizer in self._obs_normalizers():
            normalizer.update(batch.obs)
        return row

    def gradient(self, minibatch: Batch) -> Step:
        """Leave the gradient of the minibatch's loss in the parameters' ``grad``."""
        self.optimizer.zero_grad()
        loss, step = self.loss(minibatch)
        loss.backward()
        return step

    def loss(self, minibatch: Batch) -> tuple[Tensor, Step]:
        """The loss of actor and critic together (eq-ppo-loss), and what was seen on the way."""
        c, dist, mb = self.config, self.policy.dist, minibatch
        params, values = self.policy(mb.obs), self.critic(mb.obs)
        log_probs = dist.log_prob(params, mb.actions)
        weighted = log_probs, mb.log_probs, mb.advantages
        if c.loss == "clip":
            policy_loss = clipped_surrogate_loss(*weighted, clip_range=self.clip_range)
        else:
            kl = dist.kl(mb.dist_params, params)
            policy_loss = kl_penalty_loss(*weighted, kl, kl_coef=self.kl_coef)
        old_values = None if c.value_clip_range is None else mb.values
        critic_loss = value_loss(values, mb.returns, old_values, clip_range=c.value_clip_range)
        loss = policy_loss + c.vf_coef * critic_loss
        if c.ent_coef > 0:
            loss = loss - c.ent_coef * dist.entropy(params).mean()
        losses = (x.expand_as(log_probs) for x in (policy_loss, critic_loss))
        return loss, Step(*(x.detach() for x in (*losses, params, log_probs, mb.log_probs)))

    def gather(self, x: Tensor, dim: int = 0) -> Tensor:  # noqa: ARG002
        """What all ranks have, side by side along the dimension of the environments."""
        return x

    def mean(self, x: Tensor) -> Tensor:
        """The mean over rows, ``[B, …]`` to ``[…]``."""
        return x.mean(0)

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate in the next update."""
        return self.config.learning_rate * (self._left if self.config.anneal_learning_rate else 1)

    @property
    def clip_range(self) -> float:
        """ε in the next update."""
        return self.config.clip_range * (self._left if self.config.anneal_clip_range else 1)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters of actor and critic, each once."""
        return list(dict.fromkeys([*self.policy.parameters(), *self.critic.parameters()]))

    def _set_up(self, policy: Policy | None, critic: nn.Module | None) -> None:
        """All but the environments."""
        c = self.config
        # Drawn on the CPU, whatever the device: one seed is one agent.
        self.generator = torch.Generator().manual_seed(c.seed)
        self.env_steps = 0
        self.collector = self._make_collector()
        spaces = self.envs.single_observation_space, self.envs.single_action_space
        self.spaces = checkpoint.describe_spaces(*spaces)
        self.own_networks = own_networks(policy, critic)
        if policy is None or critic is None:
            normalize = c.normalize_obs
            made = make_networks(*spaces, c.hidden_sizes, self.generator, normalize_obs=normalize)
            policy = made[0] if policy is None else policy
            critic = made[1] if critic is None else critic
        self.policy, self.critic = policy.to(c.device), critic.to(c.device)
        for normalizer in self._obs_normalizers():
            normalizer.start(self.gather(self.collector.obs).to(c.device))
        seen = self.policy, self.critic, self.collector.obs.to(c.device), spaces[1]
        check_networks(*seen, normalize_obs=c.normalize_obs)
        rewards = RewardNormalizer(c.num_envs, gamma=c.gamma) if c.normalize_rewards else None
        self.reward_normalizer = rewards
        self.optimizer = self._made_optimizer = self._make_optimizer()
        self.kl_coef = c.kl_coef
        self.history = History()

    def _minibatches_of_all_epochs(self, batch: Batch) -> Iterator[Batch]:
        """Each epoch's minibatches in turn, their advantages standardised."""
        c = self.config
        epochs = (minibatches(batch, c.minibatch_size, self.generator) for _ in range(c.num_epochs))
        for minibatch in chain.from_iterable(epochs):
            if c.normalize_advantages:
                advantages = normalize_advantages(minibatch.advantages)
                minibatch = minibatch._replace(advantages=advantages)
            yield minibatch

    @torch.no_grad()
    def _statistics(self, steps: list[Step]) -> dict[str, float]:
        """Means over the steps of all minibatches of an update, taken once an update."""
        seen = Step(*(torch.cat(column) for column in zip(*steps, strict=True)))
        both = seen.log_probs, seen.old_log_probs
        columns = {
            "policy_loss": seen.policy_loss,
            "value_loss": seen.value_loss,
            "entropy": self.policy.dist.entropy(seen.dist_params),
            "approx_kl": kl_k3(*both),
            "clip_fraction": ((importance_ratio(*both) - 1).abs() > self.clip_range).float(),
        }
        means = self.mean(torch.stack(list(columns.values()), dim=-1))
        return dict(zip(columns, means.tolist(), strict=True))

    @property
    def _left(self) -> float:
        """The share of the updates that are still to be done."""
        return 1 - self.env_steps // self.config.batch_size / self.config.num_updates

    def _obs_normalizers(self) -> list[ObsNormalizer]:
        """Those that actor and critic hold, wherever; each once."""
        modules = chain(self.policy.modules(), self.critic.modules())
        return list(dict.fromkeys(m for m in modules if isinstance(m, ObsNormalizer)))

    def running(self) -> list[dict[str, Any]]:
        """The running episodes of each rank, as `state_dict` keeps them."""
        return [checkpoint.running_episodes(self.collector)]

    def start_episodes(self) -> None:
        """Begin new episodes in all environments, others wherever training goes on from."""
        self.collector = self._make_collector()
        if self.reward_normalizer is not None:
            self.reward_normalizer.sums.zero_()

    def _make_collector(self) -> Collector:
        return Collector(self.envs, seed=self._env_seed())

    def _env_seed(self) -> int:
        """Of the first own environment: other episodes wherever training goes on from."""
        if self.env_steps == 0:
            first = self.config.seed
        else:
            seeds = np.random.SeedSequence([self.config.seed, self.env_steps])
            first = int(seeds.generate_state(1)[0])
        return first + self.rank * self.envs.num_envs

    def _make_optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.parameters, self.config.learning_rate, eps=1e-5, fused=True)

    def _follow_parameters(self) -> None:
        """Let the optimizer see the parameters that the networks have now.

        A layer may have been replaced or reparametrised since it was made; what Adam knows of
        the parameters that stayed is kept.  An optimizer that somebody else put there stays.
        """
        kept, known = self.optimizer.state, self.optimizer.param_groups[0]["params"]
        changed = [id(p) for p in known] != [id(p) for p in self.parameters]
        if changed and self.optimizer is self._made_optimizer:
            self.optimizer = self._made_optimizer = self._make_optimizer()
            self.optimizer.state.update({p: kept[p] for p in self.parameters if p in kept})

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that was learned and counted: tensors, plain numbers, strings, lists."""
        return checkpoint.state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` has given, in the episodes that were running; see `anew`."""
        self.anew = checkpoint.restore(self, state)

    def save(self, path: str | Path) -> None:
        """Write `state_dict` to a file, which is complete or not there; folders are made."""
        checkpoint.write_checkpoint(path, self.state_dict())

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        env: str | MakeEnv | VectorEnv | None = None,
        policy: Policy | None = None,
        critic: nn.Module | None = None,
        **changes: Any,
    ) -> Self:
        """The trainer that `save` has written.

        Training goes on as if it had never stopped, to the bit, in the episodes that were running;
        where `anew` says why not, in new ones, which are always the same.

        Args:
            path: the file.
            env: as in `PPO`; needed where the file does not name an environment, or names one
                for which a module would have to be imported.
            policy: a network of your own, if the trainer had one; it takes the file's weights.
            critic: likewise.
            changes: fields of `PPOConfig` to change, ``total_steps`` say, to train for longer, or
                ``device``.  What shapes the networks can't be changed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is no checkpoint, or what is given does not fit it.
        """
        return checkpoint.load_trainer(cls, path, env, policy, critic, changes)

    def close(self) -> None:
        """Close the environments."""
        close_envs(self.envs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def minibatches(batch: Batch, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """The rows of a batch in random order, ``size`` at a time.

    Args:
        batch: a named tuple of columns ``[B, …]``.
        size: rows in a minibatch; the last one may have fewer.
        generator: draws the order.
    """
    order = torch.randperm(len(batch[0]), generator=generator).to(batch[0].device)
    # The whole batch is put in order once; a minibatch is then a view of it.
    columns = (column[order].split(size) for column in batch)
    for rows in zip(*columns, strict=True):
        yield type(batch)(*rows)
