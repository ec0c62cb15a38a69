"""Checkpoints: a trainer in a file that holds no code, to act with, evaluate, or train on."""

import hashlib
import io
import json
import os
import reprlib
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch.nn.parameter import is_lazy

from ppo_lib.config import PPOConfig
from ppo_lib.envs import check_wrappers, latest_version, narrow_dtype, obs_tensor
from ppo_lib.networks import GaussianPolicy, make_networks, own_networks
from ppo_lib.policies import Policy
from ppo_lib.rollout import Collector
from ppo_lib.validate import require

FORMAT = 5  #: 1 to 3 had no checksum, 4 did not say whose the networks were
_CHECKSUM = 64  # bytes, the digits of a SHA-256
_PARTS = ("policy", "critic", "optimizer", "reward_normalizer")
_COUNTS = ("returns", "lengths", "resetting")
NOT_ALL = "the state does not hold all of them"  #: of running episodes


def write_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write a trainer's state; the file is complete or not there.

    It is written beside ``path``, under a name that no other process has, and then renamed, so
    that an interruption leaves an older checkpoint as it was.  It is a file of ``torch.save``, a
    zip archive, whose comment is the SHA-256 of all before it.

    Args:
        path: the file, or a link to it; folders on the way to it are made.
        state: tensors, numbers, strings, lists and dictionaries.

    Raises:
        OSError: if it can't be written there; no part of it is left.
    """
    path = behind_links(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT} | plain(state), buffer)
    # The archive ends in the length of its comment, which is empty.
    content = buffer.getvalue()[:-2] + _CHECKSUM.to_bytes(2, "little")
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("xb") as file:
            file.write(content + _checksum(content))
            file.flush()
            os.fsync(file.fileno())  # or the new name could outlive a power cut, and not the rest
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def behind_links(path: str | Path) -> Path:
    """The file that a path stands for: itself, or what a symbolic link points to."""
    path = Path(path)
    return path.resolve() if path.is_symlink() else path


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `write_checkpoint` has written.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no checkpoint, is damaged, has not what a trainer begins with,
            one of its parts is of another kind, or it is one of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {path}, where no file is; expected a checkpoint")
    data = path.read_bytes()
    require(len(data) > 0, f"path is {path}, which is empty, expected a file of PPO.save")
    require(
        _checksum(data[:-_CHECKSUM]) == data[-_CHECKSUM:],
        f"path is {path}, whose checksum is wrong or missing, expected an undamaged file of "
        f"PPO.save; formats before 4 had none",
    )
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        number = state["format"]
    except Exception as error:
        raise ValueError(f"path is {path}, expected a file of PPO.save") from error
    require(number == FORMAT, f"{path} has format {number}, expected {FORMAT}")
    missing = sorted({"env", "spaces", "own_networks", "config", "policy", "critic"} - state.keys())
    require(not missing, f"path is {path}, which has no {missing}, expected a file of PPO.save")
    found = set(state["config"]) if isinstance(state["config"], dict) else set()
    expected = {field.name for field in fields(PPOConfig)}
    require(
        found == expected,
        f"path is {path}, whose config differs from a PPOConfig by "
        f"{sorted(map(str, found ^ expected))}",
    )
    _check_kinds(state, f"path is {path}, whose")
    return state


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


# ------------------------------------------------------------------ a trainer's state


def _check_kinds(state: dict[str, Any], where: str) -> None:
    """Refuse, by name, a part of another kind than `state_of` gives; it may have none of them."""
    for name in filter(state.__contains__, _IS_KIND):
        try:
            require(_IS_KIND[name](state[name]), f"it is {reprlib.repr(state[name])}")
        except Exception as error:
            raise ValueError(f"{where} {name} can't be read: {error}") from error


def _is_config(config: Any) -> bool:
    """Whether it is one, here or on a machine with a GPU."""
    return bool(PPOConfig(**config | ({"device": "cpu"} if config["device"] == "cuda" else {})))


def _is_named(env: Any) -> bool:
    """Whether it is what `name_env` gives."""
    return env is None or (
        [type(env[name]) for name in ("id", "kwargs", "wrappers")] == [str, dict, list]
        and all(
            isinstance(name, str) and isinstance(arguments, dict)
            for name, arguments in env["wrappers"]
        )
    )


def _is_weights(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(name, str) for name in state)


def _is_episode(episode: Any) -> bool:
    return len(episode) == 3 and all(isinstance(x, int | float) for x in episode)


#: For each part of a state whether it is of its kind; an error says no, too.
_IS_KIND: dict[str, Callable[[Any], bool]] = {
    "env": _is_named,
    "spaces": lambda x: describe_spaces(*spaces_of(x)) == x,
    "own_networks": lambda x: isinstance(x, list) and set(x) <= {"policy", "critic"},
    "config": _is_config,
    "policy": _is_weights,
    "critic": _is_weights,
    "optimizer": lambda x: isinstance(x, dict),
    "reward_normalizer": lambda x: x is None or _is_weights(x),
    "sums": lambda x: x is None or isinstance(x, torch.Tensor),
    "generator": lambda x: x.dtype == torch.uint8,
    "kl_coef": lambda x: isinstance(x, int | float) and 0 <= x < float("inf"),
    "env_steps": lambda x: type(x) is int and x >= 0,
    "running": lambda x: isinstance(x, list) and all(isinstance(part, dict) for part in x),
    # What a callback of one's own has put into a row is its own.
    "rows": lambda x: isinstance(x, list) and all(isinstance(row, dict) for row in x),
    "episodes": lambda x: isinstance(x, list) and all(map(_is_episode, x)),
}


def state_of(trainer: Any) -> dict[str, Any]:
    """What `PPO.state_dict` gives."""
    return plain(state_without_history(trainer) | history_of(trainer))


def history_of(trainer: Any) -> dict[str, list[Any]]:
    """What grows with the run, the trainer's own lists."""
    return {"rows": trainer.history.rows, "episodes": trainer.history.episodes}


def state_without_history(trainer: Any) -> dict[str, Any]:
    """What does not grow with the run; its tensors are the trainer's own."""
    state: dict[str, Any] = {
        "env": trainer.env_name,
        "spaces": trainer.spaces,
        "own_networks": list(trainer.own_networks),
        "config": asdict(trainer.config),
        "generator": trainer.generator.get_state(),
        "kl_coef": float(trainer.kl_coef),
        "env_steps": trainer.env_steps,
        "running": trainer.running(),
        "sums": None if trainer.reward_normalizer is None else trainer.reward_normalizer.sums,
    }
    for name in _PARTS:
        part = getattr(trainer, name)
        state[name] = None if part is None else part.state_dict()
    known = {"name": type(trainer.optimizer).__name__, "parameters": _known_to_optimizer(trainer)}
    state["optimizer"] = known | state["optimizer"]
    return state


def _known_to_optimizer(trainer: Any) -> list[str]:
    """The names of the parameters in the order by which an optimizer knows them."""
    names = {
        id(parameter): f"{part}.{name}"
        for part in ("critic", "policy")
        for name, parameter in getattr(trainer, part).named_parameters()
    }
    groups = trainer.optimizer.param_groups
    return [names.get(id(parameter), "") for group in groups for parameter in group["params"]]


def running_episodes(collector: Collector) -> dict[str, Any]:
    """The episodes that go on in a collector's environments; or, as "refusal", why not."""
    log = collector.log.state_dict()
    if log is None:
        return {"refusal": collector.log.refusal}
    counts = {name: torch.tensor(getattr(collector, name)) for name in _COUNTS}
    return {"log": log, "obs": collector.obs} | counts


def restore(trainer: Any, state: dict[str, Any]) -> str:
    """Give a trainer what `state_of` has told of one.

    Returns:
        Why the episodes that were running begin anew; nothing where they go on.

    Raises:
        ValueError: if the state is not of such a trainer, which is then as it was.
    """
    before = plain(state_without_history(trainer)) | history_of(trainer)
    try:
        missing = sorted(before.keys() - state.keys())
        require(not missing, f"it has no {missing}")
        _check_kinds(state, "its")
        with _naming("optimizer"):
            _check_optimizer(trainer, state["optimizer"])
        _take_up(trainer, state)
    except Exception as error:
        _take_up(trainer, before)
        raise ValueError(f"state does not fit, expected that of such a trainer: {error}") from error
    running = state["running"]
    if len(running) == trainer.num_ranks:
        anew = _go_on(trainer.collector, running[trainer.rank])
    else:
        anew = f"they were of {len(running)} processes, and here are {trainer.num_ranks}"
    sums = None if trainer.reward_normalizer is None else trainer.reward_normalizer.sums
    if not (anew or sums is None or _alike(state["sums"], sums)):
        anew = NOT_ALL
    # Every rank must do the same.
    if trainer.mean(torch.tensor([float(anew != "")])) > 0:
        anew = anew or "those of another process do"
        trainer.start_episodes()
    elif sums is not None:
        trainer.reward_normalizer.sums = state["sums"].clone()
    return anew


def _take_up(trainer: Any, state: dict[str, Any]) -> None:
    """All of a state but the running episodes."""
    for name in _PARTS:
        part = getattr(trainer, name)
        for there, has in {"state": state[name] is not None, "trainer": part is not None}.items():
            require(has or (part is None and state[name] is None), f"the {there} has no {name}")
        if part is not None:
            with _naming(name):
                part.load_state_dict(plain(state[name]))  # or an optimizer would share it
    trainer.generator.set_state(state["generator"])
    trainer.kl_coef, trainer.env_steps = state["kl_coef"], state["env_steps"]
    trainer.history.rows = [dict(row) for row in state["rows"]]
    trainer.history.episodes = list(state["episodes"])


@contextmanager
def _naming(part: str) -> Iterator[None]:
    """Make an error a ValueError that names a part of the state."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{part}: {error}") from error


def _check_optimizer(trainer: Any, state: dict[str, Any]) -> None:
    """Refuse another optimizer's state, and that of parameters in another order or shape."""
    name = type(trainer.optimizer).__name__
    found = state.get("name", name)  # older files do not say
    require(found == name, f"it is of {found}, expected {name}")
    there, own = state.get("parameters", []), _known_to_optimizer(trainer)
    require(
        sorted(there) != sorted(own) or there == own,
        f"it knows the parameters by their order {there}, expected {own}",
    )
    if name != "Adam":  # what another one keeps is its own
        return
    numbers, parameters = (
        [x for group in groups for x in group["params"]]
        for groups in (state["param_groups"], trainer.optimizer.param_groups)
    )
    for number, parameter in zip(numbers, parameters, strict=False):  # torch counts them
        for key, x in state["state"].get(number, {}).items():
            found, shape = tuple(x.shape), () if key == "step" else tuple(parameter.shape)
            # Torch looks at no shape, and writes past the end.
            require(found == shape, f"{key} has shape {found}, expected {shape}")


def _go_on(collector: Collector, running: dict[str, Any]) -> str:
    """Play the running episodes to where they were; why not, if that can't be."""
    if "refusal" in running or collector.log.refusal:
        return running.get("refusal") or collector.log.refusal
    own = {name: torch.tensor(getattr(collector, name)) for name in _COUNTS}
    held = all(isinstance(running.get(name), torch.Tensor) for name in ("obs", *own))
    if not held or running["obs"].ndim == 0 or not isinstance(running.get("log"), dict):
        return NOT_ALL
    if len(running["obs"]) != collector.envs.num_envs:
        return f"they were of {len(running['obs'])} environments"
    if not all(_alike(running[name], x) for name, x in (own | {"obs": collector.obs}).items()):
        return NOT_ALL
    if not collector.log.fits(running["log"]):
        return "the environments are stepped in another way"
    try:
        played = collector.log.play(running["log"])
    except Exception:  # in the step that it failed in before it was saved, say
        played = None
    same = played is not None and torch.equal(obs_tensor(played[0]), running["obs"])
    if not same or (played[1] and played[1] != running["returns"].tolist()):
        anew = "given the same random numbers and actions again, the environment plays otherwise"
        warnings.warn(f"running episodes begin anew: {anew}", stacklevel=6)
        return anew
    collector.obs = running["obs"]
    for name in _COUNTS:
        setattr(collector, name, running[name].numpy().copy())
    return ""


def _alike(x: Any, other: torch.Tensor) -> bool:
    kind = other.dtype, other.shape
    return isinstance(x, torch.Tensor) and (x.dtype, x.shape) == kind


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
    _ask_for_own(state, path, policy=policy)
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
    _ask_for_own(state, path, policy=policy, critic=critic)
    config = _changed_config(state, changes, path)
    networks = {"policy": policy, "critic": critic}
    own = {name: networks[name] for name in own_networks(policy, critic)}
    before = {name: _numbers(network) for name, network in own.items()}
    bounds, trainer = _bounds(policy), None
    more: dict[str, Any] = {}
    named = None if state["env"] is None else state["env"]["id"]
    if env is None or (isinstance(env, str) and latest_version(env) == named):
        env, env_kwargs, wrappers = env_of(state, path, asked=env is not None)
        more = {"env_kwargs": env_kwargs, "wrappers": wrappers}
    try:
        for name, network in own.items():  # before one looks at what they give
            load_weights(network, state[name], path, name)
        trainer = cls(env, config, **networks, **more)
        require(
            trainer.spaces == state["spaces"],
            f"env has spaces {trainer.spaces}, expected {state['spaces']} as in {path}",
        )
        bounds = bounds or _bounds(trainer.policy)
        for name in ("policy", "critic"):
            if name not in own:
                load_weights(getattr(trainer, name), state[name], path, name)
        trainer.load_state_dict(state)
        trainer.policy.load_state_dict(bounds, strict=False)  # of the environment that is there
    except BaseException:
        if trainer is not None and trainer.envs is not env:
            trainer.close()
        for name, network in own.items():
            network.load_state_dict(before[name], strict=False)
        raise
    if "kl_coef" in changes:
        trainer.kl_coef = config.kl_coef
    if config.seed != state["config"]["seed"]:
        trainer.generator.manual_seed(config.seed)
    return trainer


def _bounds(policy: Policy | None) -> dict[str, torch.Tensor]:
    """Of the actions of a Gaussian policy, if it has any."""
    state = policy.state_dict() if isinstance(policy, GaussianPolicy) else {}
    return {name: state[name].clone() for name in ("low", "high") if name in state}


def _ask_for_own(state: dict[str, Any], path: str | Path, **given: Any) -> None:
    """Refuse to make a network of the library's for weights of somebody else's."""
    for name, network in given.items():
        require(
            network is not None or name not in state["own_networks"],
            f"{name} is None, expected the network of your own that {path} was trained with",
        )


def _numbers(network: torch.nn.Module) -> dict[str, Any]:
    """A copy of a network's numbers, without those that a lazy layer has not made yet."""
    return plain({name: x for name, x in network.state_dict().items() if not is_lazy(x)})


def load_weights(
    network: torch.nn.Module, weights: dict[str, Any], path: str | Path, name: str
) -> None:
    """Give a network a file's weights; a ValueError says which argument they do not fit.

    The network is then as it was: torch has taken what fits before it says what does not.
    """
    before = _numbers(network)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        network.load_state_dict(before, strict=False)
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
    check_wrappers(wrappers)
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
    # Read back, so that the caller's own dictionaries may change, and an enum is a plain number.
    return json.loads(json.dumps({"id": latest_version(env), "kwargs": kwargs, "wrappers": named}))


def env_of(
    state: dict[str, Any], path: str | Path, *, asked: bool
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
    wrappers = [(getattr(gym.wrappers, name, 0), rest) for name, rest in named["wrappers"]]
    require(
        all(isinstance(wrapper, type) for wrapper, _ in wrappers),
        f"env is {named} in {path}, expected classes of gymnasium.wrappers as its wrappers",
    )
    return named["id"], named["kwargs"], wrappers


def describe_spaces(obs_space: gym.Space[Any], action_space: gym.Space[Any]) -> list[list[Any]]:
    """Spaces in words: ``["Discrete", n]``, ``["MultiDiscrete", *sizes]``, ``["Box", *shape]``.

    An action space that can't hold int64, or float32, says so: ``["Box float16", *shape]``.
    """
    described = [
        ["Discrete", int(space.n)]
        if isinstance(space, Discrete)
        else ["MultiDiscrete", *space.nvec.tolist()]
        if isinstance(space, MultiDiscrete)
        else ["Box", *space.shape]
        for space in (obs_space, action_space)
    ]
    narrow = narrow_dtype(action_space)
    if narrow is not None:
        described[1][0] += f" {narrow}"
    return described


def spaces_of(words: list[list[Any]]) -> list[gym.Space[Any]]:
    """Spaces that `describe_spaces` has described; a Box without bounds, which a policy has."""
    made = {
        "Discrete": lambda sizes, dtype: Discrete(sizes[0], dtype=dtype or np.int64),
        "MultiDiscrete": lambda sizes, dtype: MultiDiscrete(sizes, dtype=dtype or np.int64),
        "Box": lambda sizes, dtype: Box(-np.inf, np.inf, tuple(sizes), dtype or np.float32),
    }
    parts = [(*word.partition(" "), sizes) for word, *sizes in words]
    for name, *_ in parts:
        require(name in made, f"spaces has {name!r}, expected one of {', '.join(made)}")
    return [made[name](sizes, dtype) for name, _, dtype, sizes in parts]


def _is_json(value: Any) -> bool:
    """Whether a value would be read back from JSON as it is."""
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


_READ_BACK = {bool, int, float, complex, str, bytes, bytearray, torch.dtype, torch.device}


def plain(value: Any) -> Any:
    """A copy that nothing changes, of what is read back: numpy's numbers and enums are not.

    Raises:
        ValueError: if there is what no file of numbers and words holds, a Path, say.
    """
    if isinstance(value, dict):
        return {plain(key): plain(x) for key, x in value.items()}
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(map(plain, value))
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in _READ_BACK:
        return value
    for kind, convert in {int: int.__int__, float: float.__float__, str: str.__str__}.items():
        if isinstance(value, kind):
            return convert(value)
    raise ValueError(
        f"{value!r} is a {type(value).__name__}, which no checkpoint holds, expected tensors, "
        "numbers, strings, None, lists, tuples, sets or dictionaries"
    )
