"""The command line: ``python -m ppo_lib ENV_ID`` trains, ``… evaluate CHECKPOINT`` evaluates.

Several processes, on one machine or more, train one agent together when torchrun starts them:
``torchrun --nproc-per-node 2 -m ppo_lib ENV_ID``.
"""

import argparse
import dataclasses
import os
import re
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import torch
import torch.distributed as dist
import tyro

from ppo_lib.best import KeepBest, best_evaluation
from ppo_lib.checkpoint import describe_spaces, env_of, load_policy, read_checkpoint
from ppo_lib.config import SETTINGS, PPOConfig, settings
from ppo_lib.envs import check_envs, latest_version, make_envs
from ppo_lib.evaluate import evaluate
from ppo_lib.parallel import ParallelPPO
from ppo_lib.ppo import PPO
from ppo_lib.shell.film import checked_film_path, save_film
from ppo_lib.shell.keep import (
    Interruption,
    Keeper,
    free_paths,
    locked,
    log,
    printing,
    refuse_existing,
    say,
)
from ppo_lib.shell.tensorboard import TensorBoard
from ppo_lib.validate import require

USAGE = """\
python -m ppo_lib ENV_ID [OPTIONS]               train in an environment, CartPole-v1 say
python -m ppo_lib --resume CHECKPOINT [OPTIONS]  go on with training that has stopped
python -m ppo_lib evaluate CHECKPOINT [OPTIONS]  play episodes with what was trained
python -m ppo_lib ENV_ID --help                  every option, and its default there
"""


@dataclass
class Train:
    """Train an agent, and keep it in a checkpoint."""

    checkpoint: Path
    """The file that the agent is kept in; refused if it is there already."""
    resume: Path | None = None
    """A checkpoint to go on from, in the same file unless another one is named."""
    eval_every: int | None = None
    """Environment steps between two evaluations, of which the best agent is kept in a file beside
    the checkpoint; without it there are none."""
    eval_episodes: int = 20
    """How many episodes an evaluation plays; at least 1."""
    tensorboard: Path | None = None
    """A folder that the history is written to, for TensorBoard."""
    config: PPOConfig = field(default_factory=PPOConfig)


@dataclass
class Evaluate:
    """Play complete episodes with the agent of a checkpoint, and print what they earned."""

    checkpoint: tyro.conf.Positional[Path]
    """The file that training has written."""
    episodes: int = 20
    """How many; at least 1."""
    seed: int = 10_000
    """Of the environments, and of the actions if they are drawn; at least 0."""
    draw: bool = False
    """Draw the actions, as in training, instead of taking the most probable ones."""
    env: str | None = None
    """The environment; needed where the checkpoint names none, or one of a module of yours."""
    film: Path | None = None
    """A file for a film of one more episode: .gif, .webp or .png."""


def train(env_id: str | None, options: Train, *, named: bool) -> int:
    """Train, with a checkpoint from the start on, now and then, and whatever ends it.

    Args:
        env_id: the environment; None for that of the checkpoint to go on from.
        options: what the words of the command say.
        named: whether the checkpoint's name was given; another one is found for a default one
            that is taken.

    Returns:
        The exit status: 0, or 1 if training has failed or the last checkpoint could not be
        written, or 128 and the number of the signal that has stopped it.
    """
    path = options.checkpoint
    new = path != options.resume
    if new and named:
        refuse_existing(path)
    first = not dist.is_initialized() or dist.get_rank() == 0
    with ExitStack() as opened:
        if first and not new:
            opened.enter_context(locked(path))  # before it is read
        trainer, changed = _make_trainer(env_id, options)
        opened.enter_context(trainer)
        interruption = opened.enter_context(Interruption())
        total = trainer.config.num_updates * trainer.config.batch_size
        if first and options.resume is not None:
            changed += [f"in new episodes: {trainer.anew}"] if trainer.anew else []
            how = ", ".join(changed) or "to the bit"
            left = trainer.env_steps < total
            then = f"it goes on {how}" if left else "--total-steps asks for more"
            say(f"{options.resume}: {trainer.env_steps:,} of {total:,} steps; {then}")
        elif first and trainer.env_name["id"] not in SETTINGS:
            say(f"{trainer.env_name['id']}: general settings, since no better ones are known")
        if first and env_id not in (None, trainer.env_name["id"]):
            say(f"{env_id}: taken as {trainer.env_name['id']}")
        callbacks: list[Callable[[PPO], Any]] = []
        if first:
            board = [] if options.tensorboard is None else [TensorBoard(options.tensorboard)]
            for one in board:
                opened.enter_context(one)
            best, keeper = _keep(trainer, options, new=new, named=named)
            if new:
                opened.enter_context(locked(keeper.path))
            callbacks += [*([] if best is None else [best]), *board, keeper, log()]
        whole, failed = True, False
        try:
            trainer.learn(*callbacks, interruption, show_progress=first)
        except KeyboardInterrupt:
            interruption.signal = interruption.signal or signal.SIGINT
        except (Exception, SystemExit) as error:
            failed = interruption.signal is None
            if failed:
                traceback.print_exc()
                if first and trainer.env_steps > keeper.steps:
                    keeper.take(trainer)  # what failed was an evaluation after the update
            else:  # it may have come to processes of environments, too
                say(f"the update in which {interruption.signal.name} came has failed: {error!r}")
        finally:
            # Of whatever ends it; also of a number that is not finite.
            if first:
                whole = all([keeper.write(), best is None or best.write()])
    if failed:
        if first:
            _report_failure(trainer, keeper, new=new)
        return 1
    stopped = interruption.stopped_by or interruption.signal if trainer.env_steps < total else None
    if first:
        try:
            with printing():
                _report(trainer, keeper.path, best, stopped)
        except OSError as error:  # the run is what it is, whoever hears of it
            say(f"stdout: {error}")
    elif stopped is not None:
        say(f"rank {trainer.rank}: stopped by {stopped.name}")
    return 1 if not whole else 0 if stopped is None else 128 + stopped


def _make_trainer(env_id: str | None, options: Train) -> tuple[PPO, list[str]]:
    """A trainer, and how it may differ from the one whose checkpoint it goes on from, in words."""
    cls = ParallelPPO if dist.is_initialized() else PPO
    if options.resume is None:
        return cls(env_id, options.config), []
    state = read_checkpoint(options.resume)
    named = None if state["env"] is None else state["env"]["id"]
    require(
        env_id is None or named in (None, latest_version(env_id)),
        f"env is {env_id}, expected {named} as in {options.resume}",
    )
    given = dataclasses.asdict(options.config)
    changes = {name: x for name, x in given.items() if x != state["config"][name]}
    changed = [f"with another {', '.join(changes)}"] if changes else []
    changed += [f"in {env_id}, since it names no environment"] if named is None else []
    return cls.load(options.resume, env=env_id, **changes), changed


def _keep(
    trainer: PPO, options: Train, *, new: bool, named: bool
) -> tuple[KeepBest | None, Keeper]:
    """What keeps the best agent, if that is asked for, and what keeps the last one."""
    path, resume, every = options.checkpoint, options.resume, options.eval_every
    best = None
    if every is not None:
        best = KeepBest(_best_of(path), every, num_episodes=options.eval_episodes)
    kept = {"eval_every": every, "eval_episodes": options.eval_episodes}
    kept["tensorboard"] = None if options.tensorboard is None else str(options.tensorboard)
    for numbered in free_paths(path):
        try:
            if new and best is not None:
                refuse_existing(_best_of(numbered))
            keeper = Keeper(trainer, numbered, kept, new=new)
            break
        except FileExistsError:
            if named or not path.parent.is_dir():  # a file, say, where its folder would be
                refuse_existing(path)
                raise
    if best is not None:
        best.path = _best_of(keeper.path).absolute()
        if new and resume is not None and _best_of(resume).exists():
            shutil.copyfile(_best_of(resume), best.path)
    return best, keeper


def _best_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}.best{path.suffix}")


def _report(trainer: PPO, path: Path, best: KeepBest | None, stopped: Any) -> None:
    """What has become of it, on stdout."""
    history = trainer.history
    speed = f", {history['steps_per_second'].mean():,.0f} a second" if history.rows else ""
    print(f"{trainer.env_steps:,} steps{speed}")
    print(f"mean return of the last 20 episodes: {history.recent_return():.1f}")
    found = best_evaluation(history)
    if best is not None and found is not None:
        where = _best_of(path) if best.path.exists() else "not kept"
        print(f"best agent: {where}, mean return {found[1]:.1f} at {found[0]:,} steps")
    if stopped is not None:
        print(f"stopped by {stopped.name}: {_resume(trainer, path)} goes on")
    print(f"checkpoint: {path}")


def _report_failure(trainer: PPO, keeper: Keeper, *, new: bool) -> None:
    """What is left of training that has failed, on stderr after the traceback."""
    if new and trainer.env_steps == 0:
        keeper.remove()
        say("failed in the first update: nothing was learned, and nothing is kept")
    else:
        how, steps = _resume(trainer, keeper.path), keeper.written_steps
        say(f"failed after {trainer.env_steps:,} steps: {how} goes on from {steps:,}")


def _resume(trainer: PPO, path: Path) -> str:
    """The words that go on; of an environment of a module they name it, or none is imported."""
    env_id = trainer.env_name["id"]
    return f"{env_id} --resume {path}" if ":" in env_id else f"--resume {path}"


def play(options: Evaluate) -> None:
    """Evaluate the agent of a checkpoint."""
    path, film, seed = options.checkpoint, options.film, options.seed
    if film is not None:
        checked_film_path(film)
    policy = load_policy(path)
    state, env_id = read_checkpoint(path), options.env
    named = None if state["env"] is None else state["env"]["id"]
    if env_id is None or latest_version(env_id) == named:
        env_id, env_kwargs, wrappers = env_of(state, path, asked=env_id is not None)
    else:
        env_kwargs, wrappers = {}, []
    made: dict[str, Any] = {"env_kwargs": env_kwargs, "wrappers": wrappers}
    with closing(make_envs(env_id, 1, **made)) as envs:
        check_envs(envs)
        spaces = describe_spaces(envs.single_observation_space, envs.single_action_space)
    require(
        spaces == state["spaces"],
        f"env is {env_id}, whose spaces are {spaces}, expected {state['spaces']} as in {path}",
    )
    more: dict[str, Any] = {"seed": seed} | made
    returns = evaluate(
        policy, env_id, num_episodes=options.episodes, deterministic=not options.draw, **more
    )
    with printing():
        print(
            f"{env_id}: mean return {returns.mean():.1f} over {len(returns)} episodes, "
            f"from {returns.min():.1f} to {returns.max():.1f}"
        )
    if film is not None:
        frames = save_film(policy, env_id, film, **more)
        with printing():
            print(f"film: {film}, {frames} frames")


def run(words: list[str]) -> int:
    """Carry out a command, given as the words after ``python -m ppo_lib``; its exit status."""
    if words[0] == "evaluate":
        play(tyro.cli(Evaluate, args=words[1:], prog="python -m ppo_lib evaluate"))
        return 0
    env_id = None if words[0].startswith("--") else words[0]
    words = _whole_numbers(words if env_id is None else words[1:])
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        require(
            word not in ("--hidden-sizes", "--hidden_sizes") or not following.startswith("--"),
            f"{word} has no value, expected the widths of the hidden layers, 64 64 say",
        )
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--resume", nargs="?", type=Path)  # without a name tyro says so
    resume = finder.parse_known_args(words)[0].resume
    if resume is not None:
        default = _train_as(resume)
    else:
        require(env_id is not None, f"the first word is {words[:1]}, expected an environment")
        file = f"{latest_version(env_id).replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}.pt"
        default = Train(Path("checkpoints") / file, config=settings(env_id))
    options = tyro.cli(
        Annotated[Train, tyro.conf.OmitArgPrefixes],
        args=words,
        prog=f"python -m ppo_lib {env_id or ''}".rstrip(),
        default=default,
    )
    return train(env_id, options, named=options.checkpoint != default.checkpoint)


def _train_as(resume: Path) -> Train:
    """The options of a run that goes on, as far as its checkpoint knows them."""
    state = read_checkpoint(resume)
    config, kept = state["config"], state.get("options", {})
    kinds = {"eval_every": int | None, "eval_episodes": int, "tensorboard": str | None}
    require(
        isinstance(kept, dict)
        and kept.keys() <= kinds.keys()
        and all(isinstance(x, kinds[name]) for name, x in kept.items()),
        f"path is {resume}, whose options are {kept!r}, expected {', '.join(kinds)}",
    )
    if config["device"] != "cpu" and not torch.cuda.is_available():
        say(f"{resume}: it was trained on {config['device']!r}, and goes on on the CPU")
        config |= {"device": "cpu"}
    if kept.get("tensorboard") is not None:
        kept |= {"tensorboard": Path(kept["tensorboard"])}
    return Train(resume, config=PPOConfig(**config), **kept)


def _whole_numbers(words: list[str]) -> list[str]:
    """Words in which 1e6, after an option that wants an integer, is 1000000."""
    integers = [f.name.replace("_", "-") for f in dataclasses.fields(PPOConfig) if f.type is int]
    wanted = {f"--{name}" for name in [*integers, "eval-every"]}
    found = []
    for before, word in zip(["", *words], words, strict=False):
        name, equals, number = word.rpartition("=")
        if (name if equals else before).replace("_", "-") in wanted:
            match = re.fullmatch(r"(\d+)(?:\.(\d*))?[eE]\+?(\d{1,2})", number)
            fraction = (match[2] or "").rstrip("0") if match else ""
            if match and len(fraction) <= int(match[3]):
                number = match[1] + fraction.ljust(int(match[3]), "0")
        found.append(f"{name}{equals}{number}")
    return found


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")


def main() -> int:
    """Run the command of this process.

    Returns:
        The exit status: 2 where something was refused before training, 130 where Ctrl-C has ended
        it at once, and as `train` says.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed, as by ``>&-``
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        with printing():
            print(USAGE, end="")
        return 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            if "RANK" in os.environ or os.environ.get("WORLD_SIZE", "1") != "1":
                if torch.cuda.is_available():
                    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
                dist.init_process_group()
            return run(words)
    except (ValueError, OSError, ImportError, gym.error.Error) as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("stopped at once")
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
