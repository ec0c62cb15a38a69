"""Evaluation: what a policy earns, one episode in each of some environments of its own."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv, VectorEnv
from torch import Tensor

from ppo_lib.envs import MakeEnv, check_envs, env_actions, make_envs, obs_tensor
from ppo_lib.policies import Policy, device_of, eval_mode
from ppo_lib.validate import check_finite, check_params, require

MAX_STEPS = 100_000  #: of the longest episode that is waited for


class Episodes(NamedTuple):
    """N complete episodes, one a column, padded to the longest one's T steps."""

    obs: Tensor  #: ``[T, N, …]`` what the policy saw; 0 after the end
    actions: Tensor  #: ``[T, N, …]`` what the policy chose; 0 after the end
    rewards: Tensor  #: ``[T, N]`` float64, 0 after the end
    mask: Tensor  #: ``[T, N]`` bool, True where a step of the episode was taken


def evaluate(
    policy: Policy,
    env: str | MakeEnv,
    *,
    num_episodes: int = 20,
    seed: int,
    deterministic: bool = True,
    env_kwargs: dict[str, Any] | None = None,
    wrappers: Sequence[Any] = (),
) -> Tensor:
    """Undiscounted returns of complete episodes.

    Args:
        policy: what acts.
        env: a gymnasium id, or a callable that makes an environment.
        num_episodes: E, at least 1.
        seed: of the environments, and of the actions if they are drawn.
        deterministic: take the most probable action (the mean of a Gaussian) instead of drawing.
        env_kwargs: passed to each environment; only with an id.
        wrappers: as in `make_envs`.

    Returns:
        ``[E]`` float64.
    """
    require(num_episodes >= 1, f"num_episodes is {num_episodes}, expected at least 1")
    require(
        deterministic or 0 <= seed < 2**63,
        f"seed is {seed}, expected an integer from 0 to 2^63 - 1",
    )
    require(
        not isinstance(env, VectorEnv),
        f"env is {env}, expected an id or a callable that makes one environment",
    )
    generator = None if deterministic else torch.Generator().manual_seed(seed)
    envs = make_envs(env, num_episodes, env_kwargs=env_kwargs, wrappers=wrappers)
    try:
        returns = torch.zeros(num_episodes, dtype=torch.float64)
        for playing, _, _, rewards in _steps(envs, policy, generator, seed, MAX_STEPS):
            returns[playing] += rewards
        return returns
    finally:
        envs.close()


def play_episodes(
    envs: SyncVectorEnv,
    policy: Policy,
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    max_steps: int = MAX_STEPS,
) -> Episodes:
    """Play exactly one complete episode in each environment, and no step after its end.

    Each environment counts once, so that short episodes do not count more often than long ones.

    Args:
        envs: environments that are stepped one after the other, as `make_envs` makes them.
        policy: what acts.
        generator: draws the actions; without it the most probable action is taken (the mean of
            a Gaussian).
        seed: of the environments, environment i gets ``seed + i``; without it they go on with
            the random numbers that they have.
        max_steps: the longest episode that is waited for.

    Raises:
        ValueError: as `Collector`, or if an episode has not ended after ``max_steps`` steps.
    """
    steps = []
    for playing, *taken in _steps(envs, policy, generator, seed, max_steps):
        columns = (*taken, torch.ones(len(playing), dtype=torch.bool))
        steps.append(tuple(_in_all_columns(x, playing, envs.num_envs) for x in columns))
    return Episodes(*(torch.stack(column) for column in zip(*steps, strict=True)))


@torch.no_grad()
def _steps(
    envs: SyncVectorEnv,
    policy: Policy,
    generator: torch.Generator | None,
    seed: int | None,
    max_steps: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each step the numbers of the environments still playing, and their columns."""
    check_envs(envs)
    device, dist = device_of(policy), policy.dist
    array = envs.reset(seed=seed)[0]
    playing = np.arange(envs.num_envs)
    for _ in range(max_steps):
        obs = obs_tensor(array[playing])
        with eval_mode(policy):
            params = policy(obs.to(device)).cpu()
        check_params(params)
        actions = dist.mode(params) if generator is None else dist.sample(params, generator)
        rewards, ended = np.zeros(len(playing)), np.zeros(len(playing), dtype=bool)
        for i, (n, action) in enumerate(zip(playing, env_actions(actions, envs), strict=True)):
            array[n], rewards[i], terminated, truncated, _ = envs.envs[n].step(action)
            ended[i] = terminated or truncated
        check_finite("reward", rewards)
        yield torch.tensor(playing), obs, actions, torch.tensor(rewards)
        playing = playing[~ended]
        if len(playing) == 0:
            return
    raise ValueError(
        f"envs has an episode that goes on after {max_steps} steps, expected it to end: "
        "gymnasium.wrappers.TimeLimit ends any"
    )


def _in_all_columns(rows: Tensor, there: Tensor, num_columns: int) -> Tensor:
    """Rows at their places among ``num_columns``, and 0 elsewhere."""
    return rows.new_zeros(num_columns, *rows.shape[1:]).index_copy(0, there, rows)
