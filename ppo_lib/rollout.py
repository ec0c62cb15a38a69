"""Rollouts: T steps of N environments, with every ending told apart and nothing invented."""

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from ppo_lib.distributions import Categorical, DiagonalGaussian
from ppo_lib.policies import Policy
from ppo_lib.ranks import num_ranks, rank
from ppo_lib.validate import require


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
    episode_returns: Tensor  #: ``[E]`` float64, undiscounted, of the E episodes that ended
    episode_lengths: Tensor  #: ``[E]`` int64, their numbers of steps


class Episodes(NamedTuple):
    """N complete episodes, one a column, padded to the longest one's T steps."""

    obs: Tensor  #: ``[T, N, …]`` what the policy saw
    actions: Tensor  #: ``[T, N, …]`` what the policy chose
    rewards: Tensor  #: ``[T, N]`` float64, 0 after the end
    mask: Tensor  #: ``[T, N]`` bool, True where a step of the episode was taken


class Collector:
    """Runs a policy in a vector of environments, and goes on where the last rollout stopped.

    Of several ranks, each draws for the environments of all and takes its own part, so that M
    ranks of N/M environments do what one with N does.

    Args:
        envs: a vector environment whose autoreset is disabled, as `make_envs` makes it.
        seed: of the environments; environment i, counted over all ranks, gets ``seed + i``.

    Raises:
        ValueError: if the spaces are not supported, or the environments reset by themselves.
    """

    def __init__(self, envs: VectorEnv, *, seed: int) -> None:
        check_envs(envs)
        self.envs = envs
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, dtype=np.int64)
        self._obs = obs_tensor(envs.reset(seed=seed + rank() * envs.num_envs)[0])

    @torch.no_grad()
    def collect(self, policy: Policy, num_steps: int, generator: torch.Generator) -> Rollout:
        """Take T steps in every environment.

        Args:
            policy: what acts; its parameters are not touched.
            num_steps: T, at least 1.
            generator: draws the actions.

        Returns:
            The rollout, on the CPU wherever the policy is.

        Raises:
            ValueError: if an observation, a reward or what the policy gives is not finite.
        """
        require(num_steps >= 1, f"num_steps is {num_steps}, expected at least 1")
        device = device_of(policy)
        seen: list[tuple[Tensor, ...]] = []
        paid: list[tuple[np.ndarray, ...]] = []
        returns: list[float] = []
        lengths: list[int] = []
        for _ in range(num_steps):
            params = policy(self._obs.to(device)).cpu()
            actions = _draw(policy.dist, params, generator)
            stepped = self.envs.step(env_actions(actions, self.envs))
            next_obs, rewards, terminated, truncated = stepped[:4]
            _check_finite("reward", rewards)
            seen.append((self._obs, actions, params, obs_tensor(next_obs)))
            paid.append((rewards, terminated, truncated))
            self._obs = seen[-1][3]

            self._returns += rewards
            self._lengths += 1
            ended = terminated | truncated
            if ended.any():
                returns += self._returns[ended].tolist()
                lengths += self._lengths[ended].tolist()
                self._returns[ended] = 0.0
                self._lengths[ended] = 0
                self._obs = obs_tensor(self.envs.reset(options={"reset_mask": ended})[0])
        obs, actions, params, next_obs = (torch.stack(x) for x in zip(*seen, strict=True))
        _check_finite("dist_params", params.numpy())
        rewards, terminated, truncated = (np.stack(x) for x in zip(*paid, strict=True))
        return Rollout(
            obs,
            actions,
            policy.dist.log_prob(params, actions),
            params,
            torch.tensor(rewards, dtype=torch.float32),
            next_obs,
            torch.tensor(terminated),
            torch.tensor(truncated),
            torch.tensor(returns, dtype=torch.float64),
            torch.tensor(lengths, dtype=torch.int64),
        )


@torch.no_grad()
def play_episodes(
    envs: VectorEnv,
    policy: Policy,
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
) -> Episodes:
    """Play exactly one complete episode in each environment.

    Each environment counts once, so that short episodes do not count more often than long ones.

    Args:
        envs: a vector environment whose autoreset is disabled, as `make_envs` makes it.
        policy: what acts.
        generator: draws the actions; without it the most probable action is taken (the mean of
            a Gaussian).
        seed: of the environments, environment i gets ``seed + i``; without it they go on with
            the random numbers that they have.

    Raises:
        ValueError: as `Collector`.
    """
    check_envs(envs)
    device = device_of(policy)
    steps: list[tuple[Tensor, ...]] = []
    playing = np.ones(envs.num_envs, dtype=bool)
    obs, _ = envs.reset(seed=seed)
    while playing.any():
        seen = obs_tensor(obs)
        params = policy(seen.to(device)).cpu()
        _check_finite("dist_params", params.numpy())
        dist = policy.dist
        actions = dist.mode(params) if generator is None else dist.sample(params, generator)
        obs, rewards, terminated, truncated, _ = envs.step(env_actions(actions, envs))
        _check_finite("reward", rewards)
        steps.append((seen, actions, torch.tensor(rewards * playing), torch.tensor(playing)))
        ended = terminated | truncated
        playing &= ~ended
        if ended.any():
            obs, _ = envs.reset(options={"reset_mask": ended})
    return Episodes(*(torch.stack(column) for column in zip(*steps, strict=True)))


def obs_tensor(obs: np.ndarray) -> Tensor:
    """A copy of the observations; refused unless they are finite.

    Args:
        obs: ``[N]``, states by number, or ``[N, …]``, features of any dtype.

    Returns:
        ``[N]`` int64 or ``[N, …]`` float32: integer features too are numbers to multiply.
    """
    _check_finite("observation", obs)
    return torch.tensor(obs, dtype=torch.int64 if obs.ndim == 1 else torch.float32)


def env_actions(actions: Tensor, envs: VectorEnv) -> np.ndarray:
    """Actions as the environments take them: here, and only here, clipped to their bounds."""
    space = envs.single_action_space
    array = actions.numpy()
    return array.clip(space.low, space.high) if isinstance(space, gym.spaces.Box) else array


def device_of(policy: Policy) -> torch.device:
    """Where a policy's parameters are."""
    return next(policy.parameters()).device


def check_envs(envs: VectorEnv) -> None:
    """Refuse environments that reset by themselves, and spaces that no policy here takes."""
    mode = envs.metadata.get("autoreset_mode")
    require(
        mode == AutoresetMode.DISABLED,
        f"envs has autoreset_mode {mode}, expected AutoresetMode.DISABLED: "
        "what has ended is reset only after its last observation was seen",
    )
    obs, action = envs.single_observation_space, envs.single_action_space
    flat = isinstance(obs, gym.spaces.Box) and len(obs.shape) == 1
    require(
        flat or (isinstance(obs, gym.spaces.Discrete) and obs.start == 0),
        f"observation_space is {obs}, expected a Box of one dimension or a Discrete from 0; "
        "gymnasium.wrappers.FlattenObservation makes a Box of most others",
    )
    real = isinstance(action, gym.spaces.Box) and len(action.shape) == 1
    require(
        real or (isinstance(action, gym.spaces.Discrete) and action.start == 0),
        f"action_space is {action}, expected a Discrete from 0 or a Box of one dimension",
    )


def _draw(
    dist: type[Categorical] | type[DiagonalGaussian], params: Tensor, generator: torch.Generator
) -> Tensor:
    """Actions of this rank's environments, drawn among those of all ranks."""
    if num_ranks() == 1:
        return dist.sample(params, generator)
    drawn = dist.sample(params.repeat(num_ranks(), 1), generator)
    return drawn.split(len(params))[rank()]


def _check_finite(name: str, array: np.ndarray) -> None:
    # Not `require`: its message would be written, at every step, to be thrown away.
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is {array}, expected finite numbers")
