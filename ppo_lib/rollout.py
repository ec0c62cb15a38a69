"""Rollouts: T steps of N environments, with every ending told apart and nothing invented."""

from typing import NamedTuple

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from ppo_lib.envs import check_envs, env_actions, obs_tensor
from ppo_lib.policies import Policy, device_of, eval_mode
from ppo_lib.replay import Log
from ppo_lib.validate import check_finite, check_params, require


class Rollout(NamedTuple):
    """T steps of N environments, time-major; a column may hold several episodes (eq-a3)."""

    obs: Tensor  #: ``[T, N, …]`` what the policy saw; float32, or int64 for states by number
    actions: Tensor  #: ``[T, N, …]`` what the policy drew, not clipped to the action bounds
    log_probs: Tensor  #: ``[T, N]`` log π_θ'(a_t | s_t) at the time
    dist_params: Tensor  #: ``[T, N, P]`` the parameters of π_θ'(· | s_t)
    rewards: Tensor  #: ``[T, N]`` float32
    next_obs: Tensor  #: ``[T, N, …]`` what the step led to, before any reset
    terminated: Tensor  #: ``[T, N]`` bool, the world ended at this step
    truncated: Tensor  #: ``[T, N]`` bool, a time limit cut the episode at this step
    mask: Tensor  #: ``[T, N]`` bool, False where an environment reset itself instead of a step
    episode_returns: Tensor  #: ``[E]`` float64, undiscounted, of the E episodes that ended
    episode_lengths: Tensor  #: ``[E]`` int64, their numbers of steps


class Collector:
    """Runs a policy in a vector of environments, and goes on where the last rollout stopped.

    Environments that never reset by themselves are reset here, once their true last observation
    was seen.  Those that reset at the next step (gymnasium's default) take no action in it: the
    rollout's ``mask`` is False there.

    Args:
        envs: a vector environment with autoreset disabled, as `make_envs` makes it, or at the
            next step.
        seed: of the environments; environment i gets ``seed + i``.

    Attributes:
        obs: ``[N, …]``, what the policy sees next.
        returns, lengths: ``[N]``, of the running episodes so far.
        resetting: ``[N]`` bool, True where an environment will reset itself instead of a step.
        log: what was done in the running episodes.

    Raises:
        ValueError: if the spaces are not supported, or an episode's last observation is hidden.
    """

    def __init__(self, envs: VectorEnv, *, seed: int) -> None:
        check_envs(envs)
        self.envs, self.log = envs, Log(envs)
        self.reset(seed=seed)

    def reset(self, *, seed: int | None = None) -> None:
        """Start new episodes in every environment; without a seed, from its own random numbers."""
        self.log.begin(seed=seed)
        self.obs = obs_tensor(self.envs.reset(seed=seed)[0])
        self.returns = np.zeros(self.envs.num_envs)
        self.lengths = np.zeros(self.envs.num_envs, dtype=np.int64)
        self.resetting = np.zeros(self.envs.num_envs, dtype=bool)
        self.unfinished = False

    @torch.no_grad()
    def collect(self, policy: Policy, num_steps: int, generator: torch.Generator) -> Rollout:
        """Take T steps in every environment.

        Args:
            policy: what acts; its parameters are not touched.
            num_steps: T, at least 1; at least 2 where environments reset themselves.
            generator: draws the actions.

        Returns:
            The rollout, on the CPU wherever the policy is.

        Raises:
            ValueError: if an observation, a reward or what the policy gives is not finite.
        """
        least = 2 if _resets_itself(self.envs) else 1  # or a rollout could hold resets alone
        require(num_steps >= least, f"num_steps is {num_steps}, expected at least {least}")
        if self.unfinished:  # Ctrl-C, say, came in the midst of a step: nobody knows where they are
            self.reset()
        self.unfinished = True
        device = device_of(policy)
        columns: list[tuple[Tensor, ...]] = []
        arrays: list[tuple[np.ndarray, ...]] = []
        returns: list[float] = []
        lengths: list[int] = []
        with eval_mode(policy):
            for _ in range(num_steps):
                params = policy(self.obs.to(device)).cpu()
                actions = self._draw(policy, params, generator)
                taken = env_actions(actions, self.envs)
                self.log.add(taken)
                array, rewards, terminated, truncated, _ = self.envs.step(taken)
                if not np.isfinite(rewards).all():
                    check_params(params)  # what may be behind it
                    check_finite("reward", rewards)
                next_obs, mask = obs_tensor(array), ~self.resetting
                columns.append((self.obs, actions, params, next_obs))
                # Copies: an environment may write into the same arrays at its next step.
                arrays.append((rewards.copy(), terminated.copy(), truncated.copy(), mask))
                self.obs = next_obs

                self.returns += rewards
                self.lengths += mask
                ended = terminated | truncated
                if ended.any():
                    returns += self.returns[ended].tolist()
                    lengths += self.lengths[ended].tolist()
                    self.returns[ended] = 0.0
                    self.lengths[ended] = 0
                if _resets_itself(self.envs):
                    self.resetting = ended
                elif ended.any():
                    self.log.begin(ended)
                    self.obs = obs_tensor(self.envs.reset(options={"reset_mask": ended})[0])
        obs, actions, params, next_obs = (torch.stack(x) for x in zip(*columns, strict=True))
        check_params(params)
        rewards, *flags = (torch.tensor(np.stack(x)) for x in zip(*arrays, strict=True))
        check_finite("reward", rewards.float().numpy())
        self.unfinished = False
        return Rollout(
            obs,
            actions,
            policy.dist.log_prob(params, actions),
            params,
            rewards.float(),
            next_obs,
            *flags,
            torch.tensor(returns, dtype=torch.float64),
            torch.tensor(lengths, dtype=torch.int64),
        )

    def _draw(self, policy: Policy, params: Tensor, generator: torch.Generator) -> Tensor:
        """Actions of the environments, ``[N, …]``, from the parameters, ``[N, P]``."""
        return policy.dist.sample(params, generator)


def _resets_itself(envs: VectorEnv) -> bool:
    return envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
