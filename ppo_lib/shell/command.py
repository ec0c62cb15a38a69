"""The command line: ``python -m ppo_lib ENV_ID`` trains, ``… evaluate CHECKPOINT`` evaluates.

Several processes, on one machine or more, train one agent together when torchrun starts them:
``torchrun --nproc-per-node 2 -m ppo_lib ENV_ID``.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import torch
import torch.distributed as dist
import tyro

from ppo_lib.checkpoint import env_of, load_policy, read_checkpoint
from ppo_lib.config import PPOConfig, settings
from ppo_lib.evaluate import evaluate
from ppo_lib.parallel import ParallelPPO
from ppo_lib.ppo import PPO
from ppo_lib.shell.film import checked_film_path, save_film
from ppo_lib.shell.tensorboard import TensorBoard
from ppo_lib.validate import require

USAGE = """\
python -m ppo_lib ENV_ID [OPTIONS]               train in an environment, CartPole-v1 say
python -m ppo_lib evaluate CHECKPOINT [OPTIONS]  play episodes with what was trained
python -m ppo_lib ENV_ID --help                  every option, and its default there
"""
SAVE_EVERY = 60.0  #: seconds between two checkpoints of a training run


@dataclass
class Train:
    """Train an agent, and keep it in a checkpoint."""

    checkpoint: Path
    """The file that the agent is kept in; refused if it is there already."""
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
    film: Path | None = None
    """A file for a film of one more episode: .gif, .webp or .png."""


def train(env_id: str, options: Train) -> None:
    """Train, with a checkpoint every minute and at the end, whatever ends it."""
    path = options.checkpoint
    require(not path.exists(), f"checkpoint is {path}, which is there already: name another file")
    callbacks: list[Callable[[PPO], Any]] = []
    cls = ParallelPPO if dist.is_initialized() else PPO
    with cls(env_id, options.config) as trainer:
        first = trainer.rank == 0
        if first and options.tensorboard is not None:
            callbacks.append(TensorBoard(options.tensorboard))
        if first:
            callbacks.append(_save_now_and_then(path))
        callbacks.append(_stop_when_interrupted())
        try:
            history = trainer.learn(*callbacks, show_progress=first)
        finally:
            # What was learned is kept, too, if a number that is not finite ends training.
            if first and trainer.env_steps > 0:
                trainer.save(path)
    if not first:
        return
    speed = history["steps_per_second"].mean()
    print(f"{trainer.env_steps:,} steps, {speed:,.0f} a second")
    print(f"mean return of the last 20 episodes: {history.recent_return():.1f}")
    print(f"checkpoint: {path}")


def play(options: Evaluate) -> None:
    """Evaluate the agent of a checkpoint."""
    path, film, seed = options.checkpoint, options.film, options.seed
    if film is not None:
        checked_film_path(film)
    policy = load_policy(path)
    env_id, env_kwargs, wrappers = env_of(read_checkpoint(path), path)
    more: dict[str, Any] = {"seed": seed, "env_kwargs": env_kwargs, "wrappers": wrappers}
    returns = evaluate(
        policy, env_id, num_episodes=options.episodes, deterministic=not options.draw, **more
    )
    print(
        f"{env_id}: mean return {returns.mean():.1f} over {len(returns)} episodes, "
        f"from {returns.min():.1f} to {returns.max():.1f}"
    )
    if film is not None:
        print(f"film: {film}, {save_film(policy, env_id, film, **more)} frames")


def _save_now_and_then(path: Path) -> Callable[[PPO], None]:
    last = time.monotonic()

    def save(trainer: PPO) -> None:
        nonlocal last
        if time.monotonic() - last > SAVE_EVERY:
            trainer.save(path)
            last = time.monotonic()

    return save


def _stop_when_interrupted() -> Callable[[PPO], bool]:
    """Stop after the update that Ctrl-C has interrupted; a second Ctrl-C stops at once."""
    asked = []

    def ask(*_: Any) -> None:
        asked.append(True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, ask)
    # Ranks hear of it at different moments, and must stop after the same update.
    return lambda trainer: bool(trainer.mean(torch.tensor([float(len(asked))])) > 0)


def run(words: list[str]) -> None:
    """Carry out a command, given as the words after ``python -m ppo_lib``."""
    if words[0] == "evaluate":
        play(tyro.cli(Evaluate, args=words[1:], prog="python -m ppo_lib evaluate"))
        return
    env_id = words[0]
    file = f"{env_id.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}.pt"
    options = tyro.cli(
        Annotated[Train, tyro.conf.OmitArgPrefixes],
        args=words[1:],
        prog=f"python -m ppo_lib {env_id}",
        default=Train(Path("checkpoints") / file, config=settings(env_id)),
    )
    train(env_id, options)


def main() -> int:
    """Run the command of this process; the exit status is 2 where something was refused."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if "WORLD_SIZE" in os.environ:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group()
    try:
        run(words)
    except (ValueError, OSError, ImportError, gym.error.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0
