"""Evaluation: what a policy earns, one episode in each of some environments of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppo_lib.envs import MakeEnv, make_envs
from ppo_lib.policies import Policy
from ppo_lib.rollout import play_episodes
from ppo_lib.validate import require


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
    generator = None if deterministic else torch.Generator().manual_seed(seed)
    envs = make_envs(env, num_episodes, env_kwargs=env_kwargs, wrappers=wrappers)
    try:
        return play_episodes(envs, policy, generator, seed=seed).rewards.sum(dim=0)
    finally:
        envs.close()
