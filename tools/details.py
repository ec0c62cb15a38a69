"""Train without some of PPO's known implementation details, one at a time, over seeds.

Usage: ``python tools/details.py [--only CHANGE …] [--seeds N] [--first SEED] [--data FILE]``.  A
command that was interrupted goes on where it stopped.

What the options of `PPOConfig` do is in ``tools/options.py``; here are those changes that no
option makes.  The bases, the budgets and the evaluation are those of there.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from unittest.mock import patch

import options
import torch
from experiments import LIBRARY, ROOT, Experiment, Job, Run, arguments, seeds_of
from options import EPISODES, EVALUATION_SEED, earns
from torch import Tensor, nn

from ppo_lib import PPO
from ppo_lib.distributions import DiagonalGaussian
from ppo_lib.networks import GaussianPolicy
from ppo_lib.normalizers import ObsNormalizer, RewardNormalizer
from ppo_lib.ppo import Batch

DATA = ROOT / "book" / "_data" / "details.json"
CARTPOLE, PENDULUM = "CartPole-v1", "Pendulum-v1"
SEEDS = {CARTPOLE: 50, PENDULUM: 10}
#: By environment; Pendulum's budget is one at which a run with seed 100 had learned half of it.
BASES = {
    CARTPOLE: options.BASES[CARTPOLE],
    PENDULUM: replace(options.BASES[PENDULUM], total_steps=30_720),
}


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

    touch: Callable[[PPO], None] | None = None
    """Done to the trainer before it learns."""
    env_id: str = CARTPOLE
    fields: dict[str, Any] = field(default_factory=dict)
    """Of the configuration."""
    minibatches: Callable[..., Iterator[Batch]] | None = None
    """In place of the library's."""
    seeds: int | None = None
    """Fewer than the environment's, where a run takes long."""


CHANGES: dict[str, Change] = {
    "base": Change(),
    "one environment": Change(fields={"num_envs": 1, "num_steps": 2048}, seeds=10),
    "weights as torch draws them": Change(draw_weights_as_torch),
    "biases as torch draws them": Change(draw_biases_as_torch),
    "output gain 1": Change(scale_output_by_one),
    "Adam's ε 1e-8": Change(divide_as_torch),
    "one batch": Change(fields={"minibatch_size": 2048}),
    "minibatches in order": Change(minibatches=in_order),
    "shared layers": Change(share_layers),
    "observations not clipped": Change(leave_observations),
    "rewards scaled": Change(fields={"normalize_rewards": True}),
    "rewards scaled, not clipped": Change(leave_rewards, fields={"normalize_rewards": True}),
    "Pendulum": Change(env_id=PENDULUM),
    "Pendulum, spread by state": Change(spread_by_state, PENDULUM),
    "Pendulum, clipped actions stored": Change(store_clipped, PENDULUM),
    "Pendulum, shared layers": Change(share_layers, PENDULUM),
    "Pendulum, rewards not scaled": Change(None, PENDULUM, {"normalize_rewards": False}),
    "Pendulum, rewards not clipped": Change(leave_rewards, PENDULUM),
    "Pendulum, observations standardised": Change(None, PENDULUM, {"normalize_obs": True}),
}


def count_of(name: str) -> int:
    """How many seeds a change is trained with."""
    change = CHANGES[name]
    return change.seeds or SEEDS[change.env_id]


def train(jobs: list[Job]) -> list[Run]:
    """What the policy of each run earns in episodes of its own, with its actions drawn."""
    return [{"returns": _run(CHANGES[name], seed)} for name, seed in jobs]


def _run(change: Change, seed: int) -> float:
    wrong = change.minibatches
    planted = patch("ppo_lib.ppo.minibatches", wrong) if wrong else nullcontext()
    config = replace(BASES[change.env_id], seed=seed, **change.fields)
    with planted, PPO(change.env_id, config) as trainer:
        if change.touch is not None:
            change.touch(trainer)
        trainer.learn(show_progress=False)
    return round(earns(trainer.policy, change.env_id, EVALUATION_SEED + seed), 1)


def main() -> None:
    """Make the runs that are missing."""
    args = arguments(__doc__, cases=CHANGES).parse_args()
    settled = {"episodes": EPISODES}
    settled |= {"bases": {env_id: asdict(BASES[env_id]) for env_id in SEEDS}}
    code = (*LIBRARY, "ppo_lib/book/worlds.py", "tools/options.py", "tools/details.py")
    experiment = Experiment("make details", args.data or DATA, code, settled, train)
    jobs = ([(name, seed)] for name in args.only for seed in seeds_of(args, count_of(name)))
    experiment.go_on(jobs, args.processes)


if __name__ == "__main__":
    main()
