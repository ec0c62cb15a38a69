"""Several runs of `PPO` in one environment as one computation, for experiments of many runs.

A minibatch of 64 steps is so little work that most of a gradient step is spent on its way there.
So R runs that differ in their objectives alone go side by side: their weights lie along a first
axis, and one product of batches of matrices takes all of them one step further.  The rollouts,
the advantages, the minibatches and the critic's loss are the library's own functions, and
``tests/test_table1.py`` holds a stack, and each gradient, against `PPO`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppo_lib import PPOConfig
from ppo_lib.distributions import DiagonalGaussian
from ppo_lib.envs import make_envs
from ppo_lib.networks import make_networks
from ppo_lib.normalizers import ObsNormalizer
from ppo_lib.objectives import adapt_kl_coef, importance_ratio, value_loss
from ppo_lib.policies import Policy
from ppo_lib.ppo import Batch, minibatches
from ppo_lib.returns import gae
from ppo_lib.rollout import Collector, Rollout
from ppo_lib.validate import require

#: What the runs of a stack may differ in.
FREE = ("loss", "clip_range", "kl_coef", "adaptive_kl_target")
#: What a stack counts as it learns.
COUNTED = ("kl_coef", "episodes", "kls", "ended")


class Stack(nn.Module):
    """R networks of one shape, ``[..., R, inputs]`` to ``[..., R, outputs]``.

    Args:
        nets: the networks, linear layers with tanh between them.
        normalizer: standardises the observations of all, ``[..., R · inputs]``; or None.
    """

    def __init__(self, nets: Sequence[nn.Sequential], normalizer: ObsNormalizer | None) -> None:
        super().__init__()
        linear = [[layer for layer in net if isinstance(layer, nn.Linear)] for net in nets]
        layers = list(zip(*linear, strict=True))
        self.weights = nn.ParameterList(torch.stack([x.weight.T for x in row]) for row in layers)
        self.biases = nn.ParameterList(torch.stack([x.bias[None] for x in row]) for row in layers)
        self.normalizer = normalizer

    def forward(self, obs: Tensor) -> Tensor:
        """The outputs of each network for its own rows."""
        x = obs if self.normalizer is None else self.normalizer(obs.flatten(-2)).view_as(obs)
        x = x.unsqueeze(0) if obs.ndim == 2 else x
        x = x.transpose(0, 1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.tanh() if i else x, weight)
        x = x.transpose(0, 1)
        return x.squeeze(0) if obs.ndim == 2 else x


class StackedPolicy(Policy):
    """R Gaussian policies, ``[..., R, S]`` to ``[..., R, 2 D]``."""

    dist = DiagonalGaussian

    def __init__(self, policies: Sequence[Policy], normalizer: ObsNormalizer | None) -> None:
        super().__init__()
        self.net = Stack([policy.net for policy in policies], normalizer)
        self.log_std = nn.Parameter(torch.stack([policy.log_std.detach() for policy in policies]))

    def forward(self, obs: Tensor) -> Tensor:
        """The means, then the log standard deviations."""
        mean = self.net(obs)
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=-1)


class StackedPPO:
    """R runs of `PPO`, each in one environment of its own.

    Args:
        env_id: a gymnasium id, of continuous actions.
        configs: one a run; they differ in nothing but `FREE`, and have ``num_envs=1``.
        fixed: for each run whether β stays as it is.

    Attributes:
        episodes: for each run a list of (update, return).
        kls: for each update the mean KL divergence of each run's policy from the one before,
            ``[R]``.
        ended: for each run the update in which its gradient was no longer finite, or None.
    """

    def __init__(
        self, env_id: str, configs: Sequence[PPOConfig], fixed: Sequence[bool] = ()
    ) -> None:
        self.config = c = configs[0]
        self.configs, self.fixed = configs, fixed or [False] * len(configs)
        same = [replace(x, **{name: getattr(c, name) for name in FREE}) for x in configs]
        require(
            all(x == c for x in same) and c.num_envs == 1 and c.max_grad_norm >= 1e9,
            f"configs are {configs}, expected them to differ in {FREE} alone, one environment "
            "each, and no limit on the gradient",
        )
        num_runs = len(configs)
        self.envs = make_envs(env_id, num_runs)
        self.generator = torch.Generator().manual_seed(c.seed)
        # Environments of two stacks have different seeds; one alone has that of `PPO`.
        self.collector = Collector(self.envs, seed=c.seed * num_runs)
        spaces = self.envs.single_observation_space, self.envs.single_action_space
        start, made = self.generator.get_state(), []
        for _ in configs:  # all begin with the same weights, as runs of one seed do
            self.generator.set_state(start)
            made.append(make_networks(*spaces, c.hidden_sizes, self.generator))
        policies, critics = zip(*made, strict=True)
        self.normalizer = None
        if c.normalize_obs:
            self.normalizer = ObsNormalizer(num_runs * spaces[0].shape[0])
            self.normalizer.start(self.collector.obs.flatten()[None])
        self.policy = StackedPolicy(policies, self.normalizer)
        self.critic = Stack([critic.net for critic in critics], self.normalizer)
        self.policy.eval()  # as the collector wants it, once and not at every step
        self.parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, c.learning_rate, eps=1e-5, fused=True)
        self.kl_coef = torch.tensor([x.kl_coef for x in configs])
        self.penalised = torch.tensor([float(x.loss == "kl") for x in configs])
        ranges = [1e30 if x.loss == "kl" else x.clip_range for x in configs]
        self.clip_ranges = torch.tensor(ranges)
        self.returns = np.zeros(num_runs)
        self.episodes: list[list[tuple[int, float]]] = [[] for _ in configs]
        self.kls: list[Tensor] = []
        self.ended: list[int | None] = [None] * num_runs

    def learn(self, watch: Callable[[], None] | None = None, until: int | None = None) -> None:
        """Train all runs for what is left of ``total_steps``, or ``until`` so many updates.

        Args:
            watch: called after every update.
            until: at most `PPOConfig.num_updates`.
        """
        while len(self.kls) < (until or self.config.num_updates):
            rollout = self.collector.collect(self.policy, self.config.num_steps, self.generator)
            self.update(rollout)
            self._count(rollout)
            if watch is not None:
                watch()

    def state_dict(self) -> dict[str, Any]:
        """All that was learned and counted; not the running episodes."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        } | {name: getattr(self, name) for name in COUNTED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` has given, in new episodes."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        for name in COUNTED:
            setattr(self, name, state[name])
        seeds = np.random.SeedSequence([self.config.seed, len(self.kls)])
        self.collector.reset(seed=int(seeds.generate_state(1)[0]))

    def update(self, rollout: Rollout) -> None:
        """Epochs of minibatch gradient steps, as in `PPO.update`."""
        c = self.config
        with torch.no_grad():
            values, next_values = self.values(rollout.obs), self.values(rollout.next_obs)
        advantages, returns = gae(
            rollout.rewards,
            values,
            next_values,
            rollout.terminated,
            rollout.truncated,
            gamma=c.gamma,
            gae_lambda=c.gae_lambda,
        )
        old = rollout.obs, rollout.actions, rollout.log_probs, rollout.dist_params
        batch = Batch(*old, values, advantages, returns)
        for _ in range(c.num_epochs):
            for minibatch in minibatches(batch, c.minibatch_size, self.generator):
                self.optimizer.zero_grad()
                self.loss(minibatch).backward()
                self.stop_the_lost()
                self.optimizer.step()
        with torch.no_grad():
            kl = self.policy.dist.kl(batch.dist_params, self.policy(batch.obs)).mean(0)
        for r, config in enumerate(self.configs):
            if config.loss == "kl" and not self.fixed[r] and self.ended[r] is None:
                target = config.adaptive_kl_target
                now = adapt_kl_coef(self.kl_coef[r].item(), kl[r].item(), kl_target=target)
                self.kl_coef[r] = now
        self.kls.append(kl)
        if self.normalizer is not None:
            self.normalizer.update(batch.obs.flatten(1))

    def values(self, obs: Tensor) -> Tensor:
        """V_φ(s) of every run, ``[B, R]``."""
        return self.critic(obs).squeeze(-1)

    def loss(self, mb: Batch) -> Tensor:
        """The sum over the runs of what `PPO.loss` is for each; no run has a part in another's."""
        dist, params = self.policy.dist, self.policy(mb.obs)
        ratios = importance_ratio(dist.log_prob(params, mb.actions), mb.log_probs)
        advantages = mb.advantages
        if self.config.normalize_advantages:
            spread = advantages.std(0) + 1e-8
            advantages = (advantages - advantages.mean(0)) / spread
        # Without a clip ε is beyond any ratio, and without a penalty β is 0.
        bounds = advantages + self.clip_ranges * advantages.abs()
        penalties = self.kl_coef * self.penalised * dist.kl(mb.dist_params, params)
        losses = penalties - torch.minimum(ratios * advantages, bounds)
        critics = value_loss(self.values(mb.obs), mb.returns) * len(self.configs)
        return losses.mean(0).sum() + self.config.vf_coef * critics

    def stop_the_lost(self) -> None:
        """Take a run whose gradient is not finite out of the training, as `PPO` would refuse it."""
        gradients = [p.grad for p in self.parameters]
        if torch.stack([gradient.sum() for gradient in gradients]).sum().isfinite():
            return
        finite = torch.stack([g.flatten(1).isfinite().all(1) for g in gradients]).all(0)
        for r in (~finite).nonzero().flatten().tolist():
            for gradient in gradients:
                gradient[r] = 0.0
            if self.ended[r] is None:
                self.ended[r] = len(self.kls)

    def _count(self, rollout: Rollout) -> None:
        """The returns of the episodes that ended, run by run."""
        update = len(self.kls) - 1
        over = (rollout.terminated | rollout.truncated).numpy()
        for rewards, ends in zip(rollout.rewards.double().numpy(), over, strict=True):
            self.returns += rewards
            for r in ends.nonzero()[0]:
                if self.ended[r] is None:
                    self.episodes[r].append((update, float(self.returns[r])))
                self.returns[r] = 0.0
