"""Checkpoints: a trainer in a file, to be evaluated, or trained on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from ppo_lib.ppo import PPO, PPOConfig
from ppo_lib.validate import require

FORMAT = 2  #: 1 had a layer of a network where there is one module for all of them now


def save_checkpoint(trainer: PPO, path: str | Path) -> None:
    """Write all that a trainer has learned and counted.

    The file is complete or not there: it is written beside ``path`` and then renamed, so that an
    interruption leaves an older checkpoint as it was.

    Args:
        trainer: between two updates; of several ranks, one is enough, since all are the same.
        path: the file; folders on the way to it are made.

    Raises:
        ValueError: if the trainer's ``env_kwargs`` hold what would be read back as something
            else, or not at all.
    """
    path = Path(path)
    env_kwargs = json.dumps(trainer.env_kwargs, default=lambda _: None)
    require(
        json.loads(env_kwargs) == trainer.env_kwargs,
        f"env_kwargs is {trainer.env_kwargs}, expected what JSON can hold: numbers, strings, "
        "True, False, None, lists, and dictionaries with strings as keys",
    )
    rewards = trainer.reward_normalizer
    state = {
        "format": FORMAT,
        "env_id": trainer.env_id,
        "env_kwargs": env_kwargs,
        "config": _plain(dataclasses.asdict(trainer.config)),
        "policy": trainer.policy.state_dict(),
        "critic": trainer.critic.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "reward_normalizer": None if rewards is None else rewards.state_dict(),
        "generator": trainer.generator.get_state(),
        "kl_coef": float(trainer.kl_coef),
        "env_steps": trainer.env_steps,
        "rows": [_plain(row) for row in trainer.history.rows],
        "episodes": trainer.history.episodes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: str | Path, **changes: Any) -> PPO:
    """The trainer that `save_checkpoint` has written.

    Its environments start new episodes: where training goes on, it does so from the same
    parameters, statistics and random numbers, but from other states.

    Args:
        path: the file.
        changes: fields of `PPOConfig` to change, ``total_steps`` say, to train for longer, or
            ``device``.  What shapes the networks can't be changed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no checkpoint, or a change is refused or no field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {path}, where no file is; expected a checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        known = state["format"] == FORMAT
    except Exception as error:
        raise ValueError(f"path is {path}, expected a file of save_checkpoint") from error
    require(known, f"{path} has format {state['format']}, expected {FORMAT}")
    for name in changes:
        require(
            name in state["config"],
            f"{name} is {changes[name]!r}, expected no such field; "
            f"PPOConfig has {', '.join(state['config'])}",
        )
    for name in ("hidden_sizes", "normalize_obs", "normalize_rewards"):
        require(
            changes.get(name, state["config"][name]) == state["config"][name],
            f"{name} is {changes.get(name)!r}, expected {state['config'][name]!r} as in {path}",
        )
    config = PPOConfig(**state["config"] | changes)
    trainer = PPO(state["env_id"], config, **json.loads(state["env_kwargs"]))
    for name in ("policy", "critic", "optimizer", "reward_normalizer"):
        if state[name] is not None:
            getattr(trainer, name).load_state_dict(state[name])
    trainer.generator.set_state(state["generator"])
    trainer.kl_coef, trainer.env_steps = state["kl_coef"], state["env_steps"]
    trainer.history.rows, trainer.history.episodes = state["rows"], state["episodes"]
    return trainer


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with Python's own floats; numpy's are floats too, and are not read back."""
    return {name: float(x) if isinstance(x, float) else x for name, x in fields.items()}
