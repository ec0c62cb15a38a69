"""Run the experiment behind Table 1 of the PPO paper, and store what each run earned.

Usage: ``python tools/table1.py [ENV_ID …] [--seeds N] [--marks N] [--processes N]``; hours, and as
many as it is given.  A seed of every environment comes before the next seed, so that what is there
is a table at any time, and the quickest environment first.  Every run is stored at twenty marks on
its way, and a command that was interrupted, or was to stop at a mark, goes on from the last one,
in new episodes.

The objectives are trained side by side, see `stack`.  Needs ``gymnasium[mujoco]``, which
``make table1`` installs.
"""

import argparse
import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from experiments import LIBRARY, ROOT, made_at
from stack import StackedPPO
from stored import store

from ppo_lib import PPOConfig

DATA = ROOT / "book" / "_data" / "table1.json"
CHECKPOINTS = ROOT / "checkpoints"
CODE = (*LIBRARY, "tools/stack.py", "tools/table1.py")
#: The paper's seven, the quickest to step first.
ENV_IDS = (
    "InvertedPendulum-v5",
    "Reacher-v5",
    "InvertedDoublePendulum-v5",
    "Swimmer-v5",
    "Hopper-v5",
    "HalfCheetah-v5",
    "Walker2d-v5",
)
SEEDS = 3
LAST = 100  # episodes that a run is scored by
MARKS = 20  # at which a run is scored on its way
#: Of the paper are the numbers up to ``gae_lambda``.  Where it is silent: the authors' published
#: program standardised observations, and advantages, and limited no gradient.
SETTINGS = PPOConfig(
    total_steps=1_000_000,
    num_envs=1,
    num_steps=2048,
    num_epochs=10,
    minibatch_size=64,
    learning_rate=3e-4,
    anneal_learning_rate=False,
    hidden_sizes=(64, 64),
    gamma=0.99,
    gae_lambda=0.95,
    normalize_obs=True,
    max_grad_norm=1e9,
)


@dataclass(frozen=True)
class Objective:
    """A row of the table: what is changed of `SETTINGS`, and the paper's score."""

    changes: dict[str, Any]
    paper: float
    fixed: bool = False
    """Whether β stays as it is; the library adapts it."""


#: With β = 0 nothing is left of the penalty, and β stays 0 when it is halved or doubled.
OBJECTIVES = {
    "no clipping or penalty": Objective({"loss": "kl", "kl_coef": 0.0}, -0.39),
    "clipping, ε = 0.1": Objective({"clip_range": 0.1}, 0.76),
    "clipping, ε = 0.2": Objective({"clip_range": 0.2}, 0.82),
    "clipping, ε = 0.3": Objective({"clip_range": 0.3}, 0.70),
    "adaptive KL, target 0.003": Objective({"loss": "kl", "adaptive_kl_target": 0.003}, 0.68),
    "adaptive KL, target 0.01": Objective({"loss": "kl", "adaptive_kl_target": 0.01}, 0.74),
    "adaptive KL, target 0.03": Objective({"loss": "kl", "adaptive_kl_target": 0.03}, 0.71),
    "fixed KL, β = 0.3": Objective({"loss": "kl", "kl_coef": 0.3}, 0.62, fixed=True),
    "fixed KL, β = 1": Objective({"loss": "kl", "kl_coef": 1.0}, 0.71, fixed=True),
    "fixed KL, β = 3": Objective({"loss": "kl", "kl_coef": 3.0}, 0.72, fixed=True),
    "fixed KL, β = 10": Objective({"loss": "kl", "kl_coef": 10.0}, 0.69, fixed=True),
}


def configs(seed: int) -> list[PPOConfig]:
    """The settings of each objective's run."""
    return [replace(SETTINGS, seed=seed, **o.changes) for o in OBJECTIVES.values()]


def train(env_id: str, seed: int, marks: int, data: Path = DATA) -> str:
    """One seed of all objectives, side by side, up to a mark; stored at each on the way.

    A run whose numbers leave the range of float32 ends there; its score is that of the episodes
    before.
    """
    torch.set_num_threads(1)
    kept = CHECKPOINTS / f"table1-{env_id}-{seed}.pt"
    stack = StackedPPO(env_id, configs(seed), [o.fixed for o in OBJECTIVES.values()])
    seconds, started, made = 0.0, time.process_time(), made_at(CODE)
    if kept.is_file():
        state = torch.load(kept, weights_only=False)
        stack.load_state_dict(state["stack"])
        seconds = state["seconds"]

    def watch() -> None:
        mark, new = divmod(len(stack.kls) * MARKS, SETTINGS.num_updates)
        if new >= MARKS:
            return
        spent = seconds + time.process_time() - started
        rows = [row(stack, r, env_id, name, mark, spent) for r, name in enumerate(OBJECTIVES)]
        with_lock(data, [each | made for each in rows])
        torch.save({"stack": stack.state_dict(), "seconds": spent}, kept.with_suffix(".new"))
        kept.with_suffix(".new").replace(kept)

    stack.learn(watch, end_of(marks))
    stack.envs.close()
    if marks == MARKS:
        kept.unlink()
    return f"{env_id} seed {seed}, mark {marks}: {seconds + time.process_time() - started:.0f} s"


def end_of(mark: int) -> int:
    """The updates that a run has done at a mark, the first of which is 1."""
    return -(-mark * SETTINGS.num_updates // MARKS)


def row(
    stack: StackedPPO, r: int, env_id: str, objective: str, marks: int, seconds: float
) -> dict[str, Any]:
    """What is stored of a run: at each mark so far the mean return of its last episodes."""
    updates = np.array([update for update, _ in stack.episodes[r]])
    returns = np.array([earned for _, earned in stack.episodes[r]])
    ends = (end_of(mark + 1) for mark in range(marks))
    scores = [returns[updates < end][-LAST:].mean() for end in ends]
    last, config = stack.ended[r], stack.configs[r]
    return {
        "env_id": env_id,
        "objective": objective,
        "seed": config.seed,
        "scores": [round(float(score), 2) for score in scores],
        "episodes": len(returns),
        "ended": None if last is None else last * config.num_steps,
        "kl": float(f"{torch.stack(stack.kls[:last])[:, r].mean().item():.4g}"),
        "seconds": round(seconds / len(stack.configs)),
    }


def with_lock(data: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into the file, which several processes share, in place of older ones."""
    CHECKPOINTS.mkdir(exist_ok=True)
    with (CHECKPOINTS / "table1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = load(data)
        key = itemgetter("env_id", "seed", "objective")
        runs = {key(run): run for run in [*stored["runs"], *rows]}
        env_id, at_random = rows[0]["env_id"], stored["random"]
        if env_id not in at_random:
            at_random[env_id] = earns_at_random(env_id)
        names = list(OBJECTIVES)
        order = sorted(runs, key=lambda k: (ENV_IDS.index(k[0]), k[1], names.index(k[2])))
        stored["runs"] = [runs[k] for k in order]
        store(data, "make table1", {"mujoco": version("mujoco")} | stored)


def load(data: Path) -> dict[str, Any]:
    """What is stored so far; refused where it was made with other settings."""
    settings = json.loads(json.dumps(asdict(SETTINGS)))
    if not data.is_file():
        return {"random": {}, "settings": settings, "runs": []}
    kept = json.loads(data.read_text(encoding="utf-8"))
    if kept["settings"] != settings:
        raise ValueError(f"{data} has other settings, expected those of the code: remove it")
    return {name: kept[name] for name in ("random", "settings", "runs")}


def earns_at_random(env_id: str, episodes: int = LAST) -> float:
    """The mean return of actions drawn evenly from their bounds."""
    env = gym.make(env_id)
    env.action_space.seed(0)
    earned = 0.0
    for episode in range(episodes):
        env.reset(seed=episode)
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            earned += float(reward)
            over = terminated or truncated
    env.close()
    return round(earned / episodes, 3)


def missing(
    runs: list[dict[str, Any]], env_ids: Sequence[str], seeds: int, marks: int = MARKS
) -> Iterator[tuple[str, int]]:
    """The seeds that are not at a mark yet, in the order in which they are to be made."""
    whole = {(r["env_id"], r["seed"], r["objective"]) for r in runs if len(r["scores"]) >= marks}
    for seed in range(seeds):
        for env_id in env_ids:
            if not {(env_id, seed, name) for name in OBJECTIVES} <= whole:
                yield env_id, seed


def main() -> None:
    """Make the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_ids", nargs="*", choices=[[], *ENV_IDS], metavar="ENV_ID")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--marks", type=int, default=MARKS, help="how many of the run are wanted")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    jobs = missing(load(DATA)["runs"], args.env_ids or ENV_IDS, args.seeds, args.marks)
    jobs = [(*job, args.marks) for job in jobs]
    with ProcessPoolExecutor(args.processes) as executor:
        for done in executor.map(train, *zip(*jobs, strict=True)):
            print(done, flush=True)


if __name__ == "__main__":
    main()
