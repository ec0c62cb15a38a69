"""Train with every option changed alone, in three environments, and store what each run earned.

Usage: ``python tools/options.py [GROUP …] [--seeds N] [--first SEED] [--data FILE]``, of the groups
cartpole, acrobot, pendulum and sizes, each with a file of its own.  A command that was interrupted
goes on where it stopped.
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from experiments import LIBRARY, ROOT, Experiment, Job, Run, arguments, seeds_of
from gymnasium.vector import VectorEnv

from ppo_lib import PPO, PPOConfig, settings
from ppo_lib.book.worlds import Acrobot, Copies, Pendulum
from ppo_lib.policies import Policy

EPISODES = 50
EVALUATION_SEED = 10_000  # no training environment has a seed that large
#: Budgets at which runs with seeds of 100 and up were neither lost nor perfect.
BUDGETS = {"CartPole-v1": 12_288, "Acrobot-v1": 20_480, "Pendulum-v1": 20_480}
BASES = {env_id: replace(settings(env_id), total_steps=n) for env_id, n in BUDGETS.items()}
WORLDS = {world.env_id: world for world in (Acrobot, Pendulum)}
#: Of the history, the mean over a run's updates.
SEEN = ("gradient_steps", "approx_kl", "clip_fraction", "entropy", "grad_norm")


def options(base: PPOConfig) -> dict[str, dict[str, Any]]:
    """By name what is changed of a base; of a value that it has, the opposite.

    The fields that are missing are sizes and rates, which are chosen with the world, or say how
    long a run is and where it runs.
    """
    return {
        "base": {},
        "num_epochs=1": {"num_epochs": 1},
        "anneal_learning_rate=False": {"anneal_learning_rate": False},
        "gae_lambda": {"gae_lambda": 1.0 if base.gae_lambda < 1 else 0.95},
        "loss='kl'": {"loss": "kl"},
        "loss='kl', adaptive_kl_target=0.1": {"loss": "kl", "adaptive_kl_target": 0.1},
        "clip_range=1000": {"clip_range": 1e3},
        "anneal_clip_range=True": {"anneal_clip_range": True},
        "target_kl=0.01": {"target_kl": 0.01},
        "normalize_advantages=False": {"normalize_advantages": False},
        "normalize_obs": {"normalize_obs": not base.normalize_obs},
        "normalize_rewards": {"normalize_rewards": not base.normalize_rewards},
        "vf_coef=0.01": {"vf_coef": 0.01},
        "value_clip_range=0.2": {"value_clip_range": 0.2},
        "ent_coef=0.01": {"ent_coef": 0.01},
        "max_grad_norm=1000": {"max_grad_norm": 1e3},
        "hidden_sizes=(16,)": {"hidden_sizes": (16,)},
    }


#: On CartPole, the steps of an update in other numbers of environments; the base has 16.
SIZES: dict[str, dict[str, Any]] = {"base": {}}
SIZES |= {f"num_envs={n}": {"num_envs": n, "num_steps": 2048 // n} for n in (1, 4, 64, 256)}


class Group(NamedTuple):
    """Some changes of one base."""

    env_id: str
    cases: dict[str, dict[str, Any]]
    seeds: int


GROUPS = {
    "cartpole": Group("CartPole-v1", options(BASES["CartPole-v1"]), 50),
    "acrobot": Group("Acrobot-v1", options(BASES["Acrobot-v1"]), 20),
    "pendulum": Group("Pendulum-v1", options(BASES["Pendulum-v1"]), 10),
    "sizes": Group("CartPole-v1", SIZES, 50),
}


def data(group: str) -> Path:
    """The file of a group."""
    return ROOT / "book" / "_data" / f"options-{group}.json"


def train(group: str, jobs: list[Job]) -> list[Run]:
    """What the policy of each run earns in episodes of its own, and what was seen in training."""
    env_id, cases, _ = GROUPS[group]
    return [_run(env_id, cases[case] | {"seed": seed}) for case, seed in jobs]


def _run(env_id: str, changes: dict[str, Any]) -> Run:
    config = replace(BASES[env_id], **changes)
    with PPO(make_envs(env_id, config.num_envs), config) as trainer:
        history = trainer.learn(show_progress=False)
    seen = {name: float(f"{history[name].mean():.4g}") for name in SEEN}
    earned = earns(trainer.policy, env_id, EVALUATION_SEED + config.seed)
    return {"returns": round(earned, 1)} | seen


def make_envs(env_id: str, num_envs: int) -> VectorEnv:
    """Environments over arrays: gymnasium's own of CartPole, the book's of the others."""
    if env_id in WORLDS:
        return Copies(WORLDS[env_id], num_envs)
    return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point")


@torch.no_grad()
def earns(policy: Policy, env_id: str, seed: int) -> float:
    """The mean return of the policy as it is, its actions drawn, in `EPISODES` of its own."""
    dice, envs = torch.Generator().manual_seed(seed), make_envs(env_id, EPISODES)
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


def main() -> None:
    """Make the runs that are missing, a seed of all changes after the other."""
    parser = arguments(__doc__)
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], metavar="GROUP")
    args = parser.parse_args()
    for group in args.groups or GROUPS:
        env_id, cases, seeds = GROUPS[group]
        told = {case: {"changes": changes} for case, changes in cases.items()}
        settled = {"env_id": env_id, "episodes": EPISODES, "base": asdict(BASES[env_id])}
        code = (*LIBRARY, "ppo_lib/book/worlds.py", "tools/options.py")
        path, make = args.data or data(group), partial(train, group)
        experiment = Experiment("make options", path, code, settled, make, told)
        jobs = ([(case, seed) for case in cases] for seed in seeds_of(args, seeds))
        experiment.go_on(jobs, args.processes)


if __name__ == "__main__":
    main()
