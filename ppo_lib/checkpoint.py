"""Checkpoints: a trainer in a file that holds no code, to act with, evaluate, or train on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from ppo_lib.config import PPOConfig
from ppo_lib.networks import make_networks
from ppo_lib.policies import Policy
from ppo_lib.validate import require

FORMAT = 3  #: 1 and 2 had networks and an optimizer of the library's own


def write_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write a trainer's state; the file is complete or not there.

    It is written beside ``path`` and then renamed, so that an interruption leaves an older
    checkpoint as it was.

    Args:
        path: the file; folders on the way to it are made.
        state: tensors, numbers, strings, lists and dictionaries.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    torch.save({"format": FORMAT} | _plain(state), partial)
    partial.replace(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `write_checkpoint` has written.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no checkpoint, or one of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {path}, where no file is; expected a checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        known = state["format"] == FORMAT
    except Exception as error:
        raise ValueError(f"path is {path}, expected a file of PPO.save") from error
    require(known, f"{path} has format {state['format']}, expected {FORMAT}")
    return state


def load_policy(path: str | Path, policy: Policy | None = None) -> Policy:
    """The policy of a checkpoint alone, without a trainer and its environments.

    Args:
        path: the file.
        policy: a network of your own, if the trainer had one; it takes the file's weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no checkpoint, or its weights are not those of the policy.
    """
    state = read_checkpoint(path)
    if policy is None:
        config, spaces = state["config"], spaces_of(state["spaces"])
        policy, _ = make_networks(
            *spaces,
            config["hidden_sizes"],
            torch.Generator(),
            normalize_obs=config["normalize_obs"],
        )
    load_weights(policy, state["policy"], path, "policy")
    return policy


def load_trainer(
    cls: Any, path: str | Path, env: Any, policy: Any, critic: Any, changes: dict[str, Any]
) -> Any:
    """What `PPO.load` gives; arguments and errors are its own."""
    state = read_checkpoint(path)
    config = _changed_config(state, changes, path)
    more: dict[str, Any] = {"policy": policy, "critic": critic}
    if env is None or (state["env"] is not None and env == state["env"]["id"]):
        env, env_kwargs, wrappers = env_of(state, path, asked=env is not None)
        more |= {"env_kwargs": env_kwargs, "wrappers": wrappers}
    trainer = cls(env, config, **more)
    try:
        require(
            trainer.spaces == state["spaces"],
            f"env has spaces {trainer.spaces}, expected {state['spaces']} as in {path}",
        )
        for name in ("policy", "critic"):
            load_weights(getattr(trainer, name), state[name], path, name)
        bounds = {k: v for k, v in trainer.policy.state_dict().items() if k in ("low", "high")}
        trainer.load_state_dict(state)
        trainer.policy.load_state_dict(bounds, strict=False)  # of the environment that is there
    except BaseException:
        if trainer.envs is not env:
            trainer.close()
        raise
    if "kl_coef" in changes:
        trainer.kl_coef = config.kl_coef
    return trainer


def load_weights(
    network: torch.nn.Module, weights: dict[str, Any], path: str | Path, name: str
) -> None:
    """Give a network a file's weights; a ValueError says which argument they do not fit."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{name} has other weights than {path}, expected the network that was saved: {error}"
        ) from error


def _changed_config(state: dict[str, Any], changes: dict[str, Any], path: str | Path) -> PPOConfig:
    """The configuration of a checkpoint with some fields changed.

    Raises:
        ValueError: if a change is no field, is out of range, or would shape the networks anew.
    """
    kept = state["config"]
    for name, value in changes.items():
        require(
            name in kept,
            f"{name} is {value!r}, expected no such field; PPOConfig has {', '.join(kept)}",
        )
    for name in ("hidden_sizes", "normalize_obs", "normalize_rewards"):
        require(
            changes.get(name, kept[name]) == kept[name],
            f"{name} is {changes.get(name)!r}, expected {kept[name]!r} as in {path}",
        )
    return PPOConfig(**kept | changes)


# ------------------------------------------------------------------ environments by name


def name_env(
    env: Any, env_kwargs: dict[str, Any] | None, wrappers: Sequence[Any]
) -> dict[str, Any] | None:
    """An environment in words, so that a checkpoint can name it; None for what is no id.

    Raises:
        ValueError: if arguments or wrappers could not be read back.
    """
    if not isinstance(env, str):
        require(
            not wrappers or not callable(env),
            f"wrappers is {wrappers!r}, expected none with a callable: put them on in it",
        )
        return None
    kwargs = env_kwargs or {}
    require(
        _is_json(kwargs),
        f"env_kwargs is {kwargs}, expected what JSON can hold: numbers, strings, True, False, "
        "None, lists, and dictionaries with strings as keys; or give a callable as env",
    )
    named = []
    for wrapper in wrappers:
        cls, arguments = wrapper if isinstance(wrapper, tuple) else (wrapper, {})
        name = getattr(cls, "__name__", "")
        require(
            getattr(gym.wrappers, name, None) is cls and _is_json(arguments),
            f"wrappers holds {wrapper!r}, expected classes of gymnasium.wrappers, with arguments "
            "that JSON can hold; or give a callable that makes the wrapped environment as env",
        )
        require(
            name not in ("NormalizeObservation", "NormalizeReward"),
            f"wrappers holds {name}, whose statistics no checkpoint keeps, expected "
            "normalize_obs or normalize_rewards of PPOConfig",
        )
        named.append([name, arguments])
    return {"id": env, "kwargs": kwargs, "wrappers": named}


def env_of(
    state: dict[str, Any], path: str | Path, *, asked: bool = False
) -> tuple[str, dict[str, Any], list[Any]]:
    """The id, arguments and wrappers of the environment that a checkpoint names.

    Raises:
        ValueError: if it names none, or one for which a module would have to be imported.
    """
    named = state["env"]
    require(named is not None, f"env is None, expected an environment: {path} does not name one")
    require(
        asked or ":" not in named["id"],
        f"env is None, expected {named['id']!r}: no module is imported because {path} names it",
    )
    wrappers = [(getattr(gym.wrappers, name), arguments) for name, arguments in named["wrappers"]]
    return named["id"], named["kwargs"], wrappers


def describe_spaces(obs_space: gym.Space[Any], action_space: gym.Space[Any]) -> list[list[Any]]:
    """Spaces in words: ``["Discrete", n]``, or ``["Box", *shape]``."""
    return [
        ["Discrete", int(space.n)] if isinstance(space, Discrete) else ["Box", *space.shape]
        for space in (obs_space, action_space)
    ]


def spaces_of(words: list[list[Any]]) -> list[gym.Space[Any]]:
    """Spaces that `describe_spaces` has described; a Box without bounds, which a policy has."""
    return [
        Discrete(sizes[0]) if name == "Discrete" else Box(-np.inf, np.inf, tuple(sizes))
        for name, *sizes in words
    ]


def _is_json(value: Any) -> bool:
    """Whether a value would be read back from JSON as it is."""
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


def _plain(value: Any) -> Any:
    """The same with Python's own floats; numpy's are floats too, and are not read back."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(x) for x in value)
    return float(value) if isinstance(value, float) else value
