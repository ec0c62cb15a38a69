"""Train continuous control over seeds, and store the curves for the book.

Usage: ``python tools/control.py [ENV_ID …]``; two processes.  With environments named, the stored
runs of the others are kept.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import torch
from stored import store

from ppo_lib import PPO, evaluate, settings

DATA = Path(__file__).resolve().parents[1] / "book" / "_data" / "control.json"
SEEDS = {"Pendulum-v1": range(5), "Hopper-v5": range(3), "HalfCheetah-v5": range(3)}
POINTS = 20  # evaluations on the way
EPISODES = 10
EVALUATION_SEED = 10_000  # no training environment has a seed that large


def train(env_id: str, seed: int) -> dict[str, object]:
    """One run: what greedy episodes earn on the way, and what training episodes did."""
    torch.set_num_threads(1)
    trainer = PPO(env_id, replace(settings(env_id), seed=seed))
    every = trainer.config.num_updates // POINTS
    steps: list[int] = []
    greedy: list[float] = []
    drawn: list[float] = []
    evaluated = 0.0

    def watch(trainer: PPO) -> None:
        nonlocal evaluated
        if len(trainer.history) % every:
            return
        started = time.perf_counter()
        returns = evaluate(trainer.policy, env_id, num_episodes=EPISODES, seed=EVALUATION_SEED)
        steps.append(trainer.env_steps)
        greedy.append(round(returns.mean().item(), 1))
        drawn.append(round(trainer.history.recent_return(), 1))
        evaluated += time.perf_counter() - started

    started = time.perf_counter()
    trainer.learn(watch)
    seconds = time.perf_counter() - started - evaluated
    speed = round(trainer.env_steps / seconds)
    print(f"{env_id} seed {seed}: {greedy[-1]}, drawn {drawn[-1]}, {speed} steps/s", flush=True)
    return {
        "seed": seed,
        "steps": steps,
        "greedy": greedy,
        "drawn": drawn,
        "steps_per_second": speed,
    }


def main() -> None:
    """Train in the environments named, or in all, and store what was reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_ids", nargs="*", choices=[[], *SEEDS], metavar="ENV_ID")
    named = parser.parse_args().env_ids or list(SEEDS)
    kept = json.loads(DATA.read_text()) if DATA.is_file() else {"environments": {}}
    jobs = [(env_id, seed) for env_id in named for seed in SEEDS[env_id]]
    with ProcessPoolExecutor(2) as executor:
        runs = list(executor.map(train, *zip(*jobs, strict=True)))
    environments = kept["environments"]
    for env_id in named:
        mine = [run for job, run in zip(jobs, runs, strict=True) if job[0] == env_id]
        environments[env_id] = {"config": asdict(settings(env_id)), "runs": mine}
    ordered = {env_id: environments[env_id] for env_id in SEEDS if env_id in environments}
    store(DATA, "make control", {"environments": ordered})


if __name__ == "__main__":
    main()
