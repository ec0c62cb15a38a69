"""Vectors of environments, as a rollout wants them, and what is handed to them and taken."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import find_highest_version, get_env_id, parse_env_id
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from ppo_lib.validate import check_finite, require

MakeEnv = Callable[[], gym.Env[Any, Any]]
Wrapper = Callable[..., gym.Env[Any, Any]]


def latest_version(env_id: str) -> str:
    """An id with its version: the highest that is registered, where it names none."""
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
    check_wrappers(wrappers)
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

    here = os.getpid()

    def make() -> gym.Env[Any, Any]:
        if os.getpid() != here:
            # Ctrl-C, or a terminal that closes, comes to all processes; this one is asked to end.
            for name in ("SIGINT", "SIGHUP"):
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_IGN)
        made = gym.make(env, **kwargs) if isinstance(env, str) else env()
        require(isinstance(made, gym.Env), f"env has made {made!r}, expected an environment")
        for wrapper in wrappers:
            wrap, arguments = wrapper if isinstance(wrapper, tuple) else (wrapper, {})
            made = wrap(made, **arguments)
        return made

    options: dict[str, Any] = {"copy": False, "autoreset_mode": AutoresetMode.DISABLED}
    if vectorization == "async":
        return AsyncVectorEnv([make] * num_envs, **options)
    opened: list[gym.Env[Any, Any]] = []

    def kept() -> gym.Env[Any, Any]:
        opened.append(make())
        return opened[-1]

    try:
        envs = SyncVectorEnv([kept] * num_envs, **options)
        different = len({id(made.unwrapped) for made in opened})
        require(
            different == num_envs,
            f"env made {different} environments in {num_envs} calls, expected a new one each time",
        )
    except BaseException:  # nothing that was opened here stays open
        for made in opened:
            made.close()
        raise
    return envs


def close_envs(envs: VectorEnv) -> None:
    """Close environments, also where a process of one was killed, or was left in the midst."""
    if not isinstance(envs, AsyncVectorEnv):
        envs.close()
        return
    try:
        envs.close(timeout=5)
    except (EOFError, OSError):
        for process in envs.processes:
            process.terminate()
            process.join()
        envs.closed = True


@contextmanager
def processes_told(envs: VectorEnv) -> Iterator[None]:
    """Say of a pipe that breaks inside that the process of an environment has ended.

    Raises:
        RuntimeError: if one has, with its number and its exit code.
    """
    try:
        yield
    except (EOFError, OSError) as error:
        if not isinstance(envs, AsyncVectorEnv):
            raise
        for process in envs.processes:
            process.join(0.1)  # it may be about to end
        codes = {i: x.exitcode for i, x in enumerate(envs.processes) if x.exitcode is not None}
        if not codes:
            raise
        raise RuntimeError(
            f"processes of environments have ended, by their numbers with exit codes {codes}"
        ) from error


def check_wrappers(wrappers: Any) -> None:
    """Refuse a wrapper that is not in a list."""
    listed = isinstance(wrappers, Sequence) and not isinstance(wrappers, str)
    require(listed, f"wrappers is {wrappers!r}, expected a list: [{wrappers!r}]")


def check_envs(envs: VectorEnv) -> None:
    """Refuse environments that hide an episode's end, and spaces that no policy here takes."""
    mode = envs.metadata.get("autoreset_mode")
    require(
        mode in (AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP),
        f"envs has autoreset_mode {mode}, expected AutoresetMode.DISABLED or NEXT_STEP: "
        "what a step led to must be seen before a reset",
    )
    obs, action = envs.single_observation_space, envs.single_action_space
    numbered = isinstance(obs, gym.spaces.Discrete) and obs.start == 0
    require(
        numbered or (isinstance(obs, gym.spaces.Box) and len(obs.shape) > 0),
        f"observation_space is {obs}, expected a Box of at least one dimension or a Discrete "
        "from 0; gymnasium.wrappers.FlattenObservation makes a Box of most others",
    )
    real = (
        isinstance(action, gym.spaces.Box) and len(action.shape) == 1 and action.dtype.kind == "f"
    )
    choice = isinstance(action, gym.spaces.Discrete) and action.start == 0
    choices = (
        isinstance(action, gym.spaces.MultiDiscrete)
        and action.nvec.ndim == 1
        and not action.start.any()
    )
    require(
        real or choice or choices,
        f"action_space is {action}, expected a Discrete from 0, a MultiDiscrete of one dimension "
        "from 0, or a Box of one dimension and of floating-point numbers",
    )


def narrow_dtype(space: gym.Space[Any]) -> np.dtype[Any] | None:
    """The dtype of an action space that can't hold what is drawn, float32 or int64; else None."""
    drawn = np.float32 if isinstance(space, gym.spaces.Box) else np.int64
    return None if np.can_cast(drawn, space.dtype) else space.dtype


def obs_tensor(obs: np.ndarray) -> Tensor:
    """A copy of the observations; refused unless they are finite.

    Args:
        obs: ``[N]``, states by number, or ``[N, …]``, features of any dtype.

    Returns:
        ``[N]`` int64 or ``[N, …]`` float32; integer features too are numbers to multiply.
    """
    seen = torch.tensor(obs, dtype=torch.int64 if obs.ndim == 1 else torch.float32)
    check_finite("observation", seen.numpy())
    return seen


def env_actions(actions: Tensor, envs: VectorEnv) -> np.ndarray:
    """Actions as the environments take them: of their dtype, and clipped to their bounds."""
    return actions_in(envs.single_action_space, actions)


def actions_in(space: gym.Space[Any], actions: Tensor) -> np.ndarray:
    """Actions ``[..., *space.shape]``, of a space's dtype and, of a Box, clipped to its bounds.

    Raises:
        ValueError: if they have another shape, or are integers for a Box, or others for a number.
    """
    array, box = actions.numpy(), isinstance(space, gym.spaces.Box)
    found = array.shape[array.ndim - len(space.shape) :]
    if found != space.shape:
        raise ValueError(
            f"the policy's actions have shape {found}, expected {space.shape} of {space}"
        )
    if actions.is_floating_point() != box:
        kind = "floating-point numbers" if box else "integers"
        raise ValueError(f"the policy's actions are {actions.dtype}, expected {kind} of {space}")
    return (array.clip(space.low, space.high) if box else array).astype(space.dtype, copy=False)
