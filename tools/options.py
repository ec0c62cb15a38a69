"""Train with every option changed alone, over many seeds, and store what each run earned.

Usage: ``python tools/options.py [--seeds N] [--only OPTION …] [--data FILE] [--processes N]``;
some twelve minutes of one core.  What is stored is kept, so that a command that was interrupted
goes on where it stopped; what other settings, another processor or another commit has stored is
not mixed with it.
"""

import argparse
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from experiments import ROOT, made_at
from stored import store

from ppo_lib import PPO, settings
from ppo_lib.policies import Policy

DATA = ROOT / "book" / "_data" / "options.json"
ENV_ID = "CartPole-v1"
TOTAL_STEPS = 12_288  # chosen with seeds of 100 and up: the base is neither lost nor perfect
SEEDS = 50
EPISODES = 50
EVALUATION_SEED = 10_000  # no training environment has a seed that large
BASE = replace(settings(ENV_ID), total_steps=TOTAL_STEPS)
#: What is changed of `BASE`.  The fields that are missing are sizes and rates, which are chosen
#: with the world, or say how long a run is and where it runs.
OPTIONS: dict[str, dict[str, Any]] = {
    "base": {},
    "num_epochs=1": {"num_epochs": 1},
    "anneal_learning_rate=False": {"anneal_learning_rate": False},
    "gae_lambda=0.95": {"gae_lambda": 0.95},
    "loss='kl'": {"loss": "kl"},
    "loss='kl', adaptive_kl_target=0.1": {"loss": "kl", "adaptive_kl_target": 0.1},
    "clip_range=1000": {"clip_range": 1e3},
    "anneal_clip_range=True": {"anneal_clip_range": True},
    "target_kl=0.01": {"target_kl": 0.01},
    "normalize_advantages=False": {"normalize_advantages": False},
    "normalize_obs=False": {"normalize_obs": False},
    "normalize_rewards=True": {"normalize_rewards": True},
    "vf_coef=0.01": {"vf_coef": 0.01},
    "value_clip_range=0.2": {"value_clip_range": 0.2},
    "ent_coef=0.01": {"ent_coef": 0.01},
    "max_grad_norm=1000": {"max_grad_norm": 1e3},
    "hidden_sizes=(16,)": {"hidden_sizes": (16,)},
}
#: Of the history, the mean over a run's updates.
SEEN = ("gradient_steps", "approx_kl", "clip_fraction", "entropy", "grad_norm")


def train(job: tuple[str, int]) -> dict[str, float]:
    """One run: what its policy earns in episodes of its own, and what was seen in training."""
    option, seed = job
    torch.set_num_threads(1)
    with PPO(ENV_ID, replace(BASE, seed=seed, **OPTIONS[option])) as trainer:
        history = trainer.learn(show_progress=False)
    seen = {name: float(f"{history[name].mean():.4g}") for name in SEEN}
    return {"returns": round(earns(trainer.policy, EVALUATION_SEED + seed), 1)} | seen


@torch.no_grad()
def earns(policy: Policy, seed: int, env_id: str = ENV_ID) -> float:
    """The mean return of the policy as it is, its actions drawn, an episode in each environment."""
    dice = torch.Generator().manual_seed(seed)
    envs = gym.make_vec(env_id, num_envs=EPISODES, vectorization_mode="vector_entry_point")
    obs, _ = envs.reset(seed=seed)
    returns, playing = np.zeros(EPISODES), np.ones(EPISODES, dtype=bool)
    while playing.any():
        params = policy(torch.as_tensor(obs, dtype=torch.float32))
        actions = policy.dist.sample(params, dice).numpy()
        obs, rewards, terminated, truncated, _ = envs.step(actions)
        returns += rewards * playing
        playing &= ~(terminated | truncated)
    envs.close()
    return float(returns.mean())


def made_by() -> dict[str, Any]:
    """What the runs depend on, and where they were made."""
    return {
        "env_id": ENV_ID,
        "episodes": EPISODES,
        **made_at(("ppo_lib", "tools/options.py")),
        "base": json.loads(json.dumps(asdict(BASE))),
    }


def missing(options: dict[str, Any], named: Iterable[str], seeds: int) -> list[tuple[str, int]]:
    """The runs that are not stored yet, every option's first seed first."""
    done = {option: len(options.get(option, {}).get("returns", ())) for option in named}
    return [(option, seed) for seed in range(seeds) for option in done if seed >= done[option]]


def main() -> None:
    """Make the runs that are missing, and store all after every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    options: dict[str, Any] = {}
    if args.data.is_file():
        kept = json.loads(args.data.read_text(encoding="utf-8"))
        for name, value in made_by().items():
            if kept[name] != value:
                parser.error(f"{args.data} has {name} {kept[name]}, here it is {value}: remove it")
        options = kept["options"]
    jobs = missing(options, args.only, args.seeds)
    with ProcessPoolExecutor(args.processes) as executor:
        for (option, seed), run in zip(jobs, executor.map(train, jobs), strict=True):
            entry = options.setdefault(option, {"changes": OPTIONS[option]})
            for name, value in run.items():
                entry.setdefault(name, []).append(value)
            if option == args.only[-1]:
                print(f"seed {seed} of {args.seeds}", flush=True)
                store(args.data, "make options", made_by() | {"options": options})


if __name__ == "__main__":
    main()
