"""Run the experiment behind Table 1 of the PPO paper, and store what each run earned.

Usage: ``python tools/table1.py [ENV_ID …] [--seeds N] [--processes N]``; hours, and as many as it
is given: every run is stored when it ends, and a command that was interrupted goes on where it
stopped.  The quickest environment comes first, and within it a seed of all objectives before the
next seed, so that what is stored can be compared at any time.

Needs ``gymnasium[mujoco]``, which ``make table1`` installs.
"""

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch
from stored import store

from ppo_lib import PPO, PPOConfig

DATA = Path(__file__).resolve().parents[1] / "book" / "_data" / "table1.json"
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
    """A row of the table: what is changed of `SETTINGS`, and what the paper's score was."""

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


def train(env_id: str, objective: str, seed: int, **changes: Any) -> dict[str, Any]:
    """One run: the mean return of its last episodes, and how it came there.

    A run whose numbers leave the range of float32 ends there, and says why; the paper's scores
    hold such runs as well.
    """
    torch.set_num_threads(1)
    row = OBJECTIVES[objective]
    config = PPOConfig(**asdict(SETTINGS) | row.changes | {"seed": seed} | changes)

    def hold(trainer: PPO) -> None:
        if row.fixed:
            trainer.kl_coef = config.kl_coef

    started, ended = time.perf_counter(), ""
    with PPO(env_id, config) as trainer:
        try:
            trainer.learn(hold, show_progress=False)
        except ValueError as error:
            ended = str(error).split(",")[0][:80]
        returns = np.array([earned for _, earned, _ in trainer.history.episodes])
        curve = trainer.history["episode_return"]
        kl = trainer.history["approx_kl"]
    return {
        "env_id": env_id,
        "objective": objective,
        "seed": seed,
        "score": round(float(returns[-LAST:].mean()), 3),
        "episodes": len(returns),
        "steps": trainer.env_steps,
        "ended": ended,
        "curve": [round(float(np.nanmean(part)), 1) for part in np.array_split(curve, 20)],
        "approx_kl": float(f"{np.mean(kl):.4g}"),
        "seconds": round(time.perf_counter() - started),
    }


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
    runs: list[dict[str, Any]], env_ids: list[str], seeds: int
) -> Iterator[tuple[str, str, int]]:
    """The runs that are not stored yet, in the order in which they are to be made."""
    done = {(run["env_id"], run["objective"], run["seed"]) for run in runs}
    for env_id in env_ids:
        for seed in range(seeds):
            for objective in OBJECTIVES:
                if (env_id, objective, seed) not in done:
                    yield env_id, objective, seed


def main() -> None:
    """Make the runs that are missing, and store after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_ids", nargs="*", choices=[[], *ENV_IDS], metavar="ENV_ID")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    named = args.env_ids or list(ENV_IDS)
    settings = json.loads(json.dumps(asdict(SETTINGS)))
    runs, at_random = [], {}
    if args.data.is_file():
        kept = json.loads(args.data.read_text(encoding="utf-8"))
        if kept["settings"] != settings:
            parser.error(f"{args.data} has other settings, expected those of the code: remove it")
        runs, at_random = kept["runs"], kept["random"]
    order = {job: i for i, job in enumerate(missing([], list(ENV_IDS), args.seeds))}
    with ProcessPoolExecutor(args.processes) as executor:
        jobs = [executor.submit(train, *job) for job in missing(runs, named, args.seeds)]
        for job in as_completed(jobs):
            run = job.result()
            if run["env_id"] not in at_random:
                at_random[run["env_id"]] = earns_at_random(run["env_id"])
            runs.append(run)
            runs.sort(key=lambda r: order.get((r["env_id"], r["objective"], r["seed"]), len(order)))
            print(
                *(run[k] for k in ("env_id", "objective", "seed", "score", "seconds")), flush=True
            )
            stored = {"random": at_random, "settings": settings, "runs": runs}
            store(args.data, "make table1", {"mujoco": mujoco.__version__} | stored)


if __name__ == "__main__":
    main()
