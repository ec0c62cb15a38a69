"""Vectors of environments, as a rollout wants them."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import find_highest_version, get_env_id, parse_env_id
from gymnasium.vector import AutoresetMode, VectorEnv

from ppo_lib.validate import require

MakeEnv = Callable[[], gym.Env[Any, Any]]
Wrapper = Callable[..., gym.Env[Any, Any]]


def latest_version(env_id: str) -> str:
    """An id with its version: the highest that is registered, where it names none."""
    if env_id in gym.registry or ":" in env_id:
        return env_id
    try:
        namespace, name, version = parse_env_id(env_id)
    except gym.error.Error:  # gymnasium says more of it once it is to be made
        return env_id
    highest = find_highest_version(namespace, name) if version is None else None
    return env_id if highest is None else get_env_id(namespace, name, highest)


def make_envs(
    env: str | MakeEnv | VectorEnv,
    num_envs: int,
    *,
    env_kwargs: dict[str, Any] | None = None,
    wrappers: Sequence[Wrapper | tuple[Wrapper, dict[str, Any]]] = (),
    vectorization: str = "sync",
) -> VectorEnv:
    """A vector of N copies of an environment, as `Collector` wants it.

    Args:
        env: a gymnasium id, ``"CartPole-v1"`` say; a callable that makes an environment; or a
            vector environment of N copies, which is given back.
        num_envs: N, at least 1.
        env_kwargs: passed to each environment; only with an id.
        wrappers: put round each environment, the first one innermost; each a callable, or a
            pair of one and a dictionary of its arguments.
        vectorization: "sync", one after the other; "async", each in a process of its own; or
            "array", gymnasium's own environment over arrays (its ``vector_entry_point``).

    Returns:
        A vector environment that never resets by itself, so that the collector sees the true last
        observation; "array" resets at the next step, which the collector leaves out.

    Raises:
        ValueError: if a number is out of range, or there is no such environment over arrays.
    """
    require(num_envs >= 1, f"num_envs is {num_envs}, expected at least 1")
    kwargs = env_kwargs or {}
    if isinstance(env, str):
        env = latest_version(env)
    require(
        isinstance(env, str | VectorEnv) or callable(env),
        f"env is {env!r}, expected an id, a callable that makes a new environment each time, or a "
        "vector environment; of an EnvSpec, env=spec.make",
    )
    if isinstance(env, VectorEnv):
        require(
            env.num_envs == num_envs,
            f"env has {env.num_envs} copies, expected num_envs = {num_envs}",
        )
        for name, given in {"env_kwargs": env_kwargs, "wrappers": wrappers}.items():
            require(not given, f"{name} is {given}, expected none with a vector environment")
        return env
    if vectorization == "array":
        spec = gym.spec(env) if isinstance(env, str) else None
        require(
            spec is not None and spec.vector_entry_point is not None and not wrappers,
            f"vectorization is 'array', expected 'sync' or 'async' for {env!r} "
            f"with {len(wrappers)} wrappers: there is no environment over arrays for that",
        )
        return gym.make_vec(env, num_envs, vectorization_mode="vector_entry_point", **kwargs)
    require(
        vectorization in ("sync", "async"),
        f"vectorization is {vectorization!r}, expected 'sync', 'async' or 'array'",
    )
    require(
        isinstance(env, str) or not kwargs,
        f"env_kwargs is {kwargs}, expected none with a callable, which knows its own",
    )

    def make() -> gym.Env[Any, Any]:
        made = gym.make(env, **kwargs) if isinstance(env, str) else env()
        for wrapper in wrappers:
            wrap, arguments = wrapper if isinstance(wrapper, tuple) else (wrapper, {})
            made = wrap(made, **arguments)
        return made

    vector = {"sync": gym.vector.SyncVectorEnv, "async": gym.vector.AsyncVectorEnv}[vectorization]
    envs = vector([make] * num_envs, copy=False, autoreset_mode=AutoresetMode.DISABLED)
    if vectorization == "sync":
        different = len({id(copy.unwrapped) for copy in envs.envs})
        if different < num_envs:
            envs.close()
            raise ValueError(
                f"env made {different} environments in {num_envs} calls, expected a new one each "
                "time"
            )
    return envs
