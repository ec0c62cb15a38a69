"""Train without some of PPO's known implementation details, one at a time, over seeds.

Usage: ``python tools/details.py [--only CHANGE …] [--processes N]``; some twenty minutes of one
core.  What is stored is kept, and a command that was interrupted goes on where it stopped.

What the options of `PPOConfig` do is in ``tools/options.py``; here are those changes that no
option makes.  The base, the budget and the evaluation on CartPole are the same there and here.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import options
import torch
from stored import store
from torch import Tensor, nn

from ppo_lib import PPO, PPOConfig, evaluate, settings
from ppo_lib.distributions import DiagonalGaussian
from ppo_lib.networks import GaussianPolicy
from ppo_lib.normalizers import ObsNormalizer, RewardNormalizer
from ppo_lib.policies import Policy
from ppo_lib.ppo import Batch

DATA = Path(__file__).resolve().parents[1] / "book" / "_data" / "details.json"
CARTPOLE, PENDULUM = options.ENV_ID, "Pendulum-v1"
#: By environment; Pendulum's budget is one at which a run with seed 100 had learned half of it.
BASE: dict[str, PPOConfig] = {
    CARTPOLE: options.BASE,
    PENDULUM: replace(settings(PENDULUM), total_steps=30_720),
}
SEEDS = {CARTPOLE: 50, PENDULUM: 10}
EPISODES = options.EPISODES


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """A network's linear layers, the first one first."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def draw_weights_as_torch(trainer: PPO) -> None:
    """Weights evenly within ±1/√inputs, as `nn.Linear` draws them, in all layers."""
    for layer in [*linear_layers(trainer.policy), *linear_layers(trainer.critic)]:
        bound = 1 / math.sqrt(layer.in_features)
        nn.init.uniform_(layer.weight, -bound, bound, generator=trainer.generator)


def draw_biases_as_torch(trainer: PPO) -> None:
    """Biases evenly within ±1/√inputs, instead of 0."""
    for layer in [*linear_layers(trainer.policy), *linear_layers(trainer.critic)]:
        bound = 1 / math.sqrt(layer.in_features)
        nn.init.uniform_(layer.bias, -bound, bound, generator=trainer.generator)


@torch.no_grad()
def scale_output_by_one(trainer: PPO) -> None:
    """The policy's last layer with the gain 1 instead of 0.01."""
    linear_layers(trainer.policy)[-1].weight.mul_(100)


def divide_as_torch(trainer: PPO) -> None:
    """Adam's ε as torch has it, 1e-8 instead of 1e-5."""
    trainer.optimizer.param_groups[0]["eps"] = 1e-8


def share_layers(trainer: PPO) -> None:
    """One trunk for actor and critic, each with an output layer of its own."""
    trainer.critic.net = nn.Sequential(*trainer.policy.net[:-1], trainer.critic.net[-1])


class Unclipped(ObsNormalizer):
    """Standardised observations without the bounds ±10."""

    def forward(self, obs: Tensor) -> Tensor:
        """Normalise."""
        return (obs - self.center) * self.scale


def leave_observations(trainer: PPO) -> None:
    """Standardised observations are not clipped."""
    for module in [*trainer.policy.modules(), *trainer.critic.modules()]:
        if isinstance(module, ObsNormalizer):
            module.__class__ = Unclipped


class UnclippedRewards(RewardNormalizer):
    """Scaled rewards without the bounds ±10."""

    def forward(self, rewards: Tensor, ended: Tensor, mask: Tensor) -> Tensor:
        """Count in, and scale."""
        super().forward(rewards, ended, mask)
        return rewards / (self.var + 1e-8).sqrt().float()


def leave_rewards(trainer: PPO) -> None:
    """Scaled rewards are not clipped."""
    trainer.reward_normalizer.__class__ = UnclippedRewards


class SpreadByState(GaussianPolicy):
    """A Gaussian whose standard deviations are outputs of the network."""

    def forward(self, obs: Tensor) -> Tensor:
        """The means, then the log standard deviations."""
        return self.net(obs)


def spread_by_state(trainer: PPO) -> None:
    """The spread depends on the state; at the start it is about 1, as with the library's."""
    policy, last = trainer.policy, linear_layers(trainer.policy)[-1]
    both = nn.Linear(last.in_features, 2 * last.out_features)
    nn.init.orthogonal_(both.weight, 0.01, generator=trainer.generator)
    nn.init.zeros_(both.bias)
    policy.net[-1] = both
    del policy.log_std
    policy.__class__ = SpreadByState


class Clipped(DiagonalGaussian):
    """Draws that are clipped to Pendulum's bounds before anything is stored of them."""

    @staticmethod
    def sample(params: Tensor, generator: torch.Generator) -> Tensor:
        """Draw, and clip."""
        return DiagonalGaussian.sample(params, generator).clamp(-2.0, 2.0)


def store_clipped(trainer: PPO) -> None:
    """What is stored, and learned from, is the clipped action."""
    trainer.policy.dist = Clipped


def in_order(batch: Batch, size: int, generator: torch.Generator) -> Iterator[Batch]:  # noqa: ARG001
    """Minibatches of neighbouring steps, the same in every epoch."""
    for rows in zip(*(column.split(size) for column in batch), strict=True):
        yield Batch(*rows)


@dataclass(frozen=True)
class Change:
    """What is done without a detail."""

    env_id: str = CARTPOLE
    fields: dict[str, Any] = field(default_factory=dict)
    """Of the configuration."""
    touch: Callable[[PPO], None] | None = None
    """Done to the trainer before it learns."""
    minibatches: Callable[..., Iterator[Batch]] | None = None
    """In place of the library's."""
    seeds: int | None = None
    """Fewer than the environment's, where a run takes long."""


CHANGES: dict[str, Change] = {
    "base": Change(),
    "one environment": Change(fields={"num_envs": 1, "num_steps": 2048}, seeds=10),
    "weights as torch draws them": Change(touch=draw_weights_as_torch),
    "biases as torch draws them": Change(touch=draw_biases_as_torch),
    "output gain 1": Change(touch=scale_output_by_one),
    "Adam's ε 1e-8": Change(touch=divide_as_torch),
    "one batch": Change(fields={"minibatch_size": 2048}),
    "minibatches in order": Change(minibatches=in_order),
    "shared layers": Change(touch=share_layers),
    "observations not clipped": Change(touch=leave_observations),
    "rewards scaled": Change(fields={"normalize_rewards": True}),
    "rewards scaled, not clipped": Change(fields={"normalize_rewards": True}, touch=leave_rewards),
    "Pendulum": Change(PENDULUM),
    "Pendulum, spread by state": Change(PENDULUM, touch=spread_by_state),
    "Pendulum, clipped actions stored": Change(PENDULUM, touch=store_clipped),
    "Pendulum, shared layers": Change(PENDULUM, touch=share_layers),
    "Pendulum, rewards not scaled": Change(PENDULUM, {"normalize_rewards": False}),
    "Pendulum, rewards not clipped": Change(PENDULUM, touch=leave_rewards),
    "Pendulum, observations standardised": Change(PENDULUM, {"normalize_obs": True}),
}


def seeds_of(name: str) -> int:
    """How many seeds a change is trained with."""
    change = CHANGES[name]
    return change.seeds or SEEDS[change.env_id]


def train(job: tuple[str, int]) -> float:
    """One run: what its policy earns in episodes of its own, with its actions drawn."""
    name, seed = job
    torch.set_num_threads(1)
    change = CHANGES[name]
    wrong = change.minibatches
    planted = patch("ppo_lib.ppo.minibatches", wrong) if wrong else nullcontext()
    config = replace(BASE[change.env_id], seed=seed, **change.fields)
    with planted, PPO(change.env_id, config) as trainer:
        if change.touch is not None:
            change.touch(trainer)
        trainer.learn(show_progress=False)
    return round(earns(trainer.policy, change.env_id, options.EVALUATION_SEED + seed), 1)


def earns(policy: Policy, env_id: str, seed: int) -> float:
    """The mean return of as many episodes as ``tools/options.py`` plays, in the same worlds."""
    if gym.spec(env_id).vector_entry_point is None:
        given = {"num_episodes": EPISODES, "seed": seed, "deterministic": False}
        return float(evaluate(policy, env_id, **given).mean())
    return options.earns(policy, seed, env_id)


def missing(returns: dict[str, list[float]], named: list[str]) -> list[tuple[str, int]]:
    """The runs that are not stored yet: CartPole's first, and every change's first seed first."""
    left = [
        (name, seed) for name in named for seed in range(len(returns.get(name, ())), seeds_of(name))
    ]
    return sorted(left, key=lambda job: (CHANGES[job[0]].env_id, job[1] // 5))


def main() -> None:
    """Make the runs that are missing, and store as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), default=list(CHANGES))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    base = json.loads(json.dumps({env_id: asdict(config) for env_id, config in BASE.items()}))
    returns: dict[str, list[float]] = {}
    if args.data.is_file():
        kept = json.loads(args.data.read_text(encoding="utf-8"))
        if kept["base"] != base:
            parser.error(f"{args.data} has another base, expected that of the code: remove it")
        returns = kept["returns"]
    jobs = missing(returns, args.only)
    with ProcessPoolExecutor(args.processes) as executor:
        runs = executor.map(train, jobs)
        for done, ((name, _), earned) in enumerate(zip(jobs, runs, strict=True), start=1):
            returns.setdefault(name, []).append(earned)
            if done % 20 == 0 or done == len(jobs):
                ordered = {key: returns[key] for key in CHANGES if key in returns}
                store(args.data, "make details", {"base": base, "returns": ordered})
                print(f"{done} of {len(jobs)} runs", flush=True)


if __name__ == "__main__":
    main()
