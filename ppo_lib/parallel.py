"""Several processes, the *ranks*, that train one agent together, by torch.distributed.

``torchrun`` starts them.  Rank m of M has N/M of the N environments, the columns from m N/M on.
All of them draw the same random numbers, hold the whole batch, and take their part of each
minibatch, so that M ranks compute what one does, up to the order in which sums are added.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ppo_lib.policies import Policy
from ppo_lib.ppo import PPO, Batch, PPOConfig, Step
from ppo_lib.rollout import Collector, Rollout
from ppo_lib.validate import require


class ParallelPPO(PPO):
    """`PPO` of which every rank steps a part of the environments and takes a part of each gradient.

    A callback of `learn` must give the same answer on every rank.  Arguments are those of `PPO`;
    ``torch.distributed`` must have been initialised.

    Raises:
        ValueError: if it was not, or the environments can't be shared out evenly.
    """

    def __init__(self, env: Any, config: PPOConfig | None = None, **more: Any) -> None:
        require(dist.is_initialized(), "torch.distributed is not initialised, expected it to be")
        self.rank, self.num_ranks = dist.get_rank(), dist.get_world_size()
        # At the start nothing need be known of them: they begin by the seed.
        self._running: list[Any] = [{"refusal": "they had not begun"}] * self.num_ranks
        super().__init__(env, config, **more)
        for network in (self.policy, self.critic):
            for tensor in network.state_dict().values():  # buffers, too
                dist.broadcast(tensor, 0)

    def collect(self) -> Rollout:
        """The next T steps of the environments of all ranks."""
        own = super().collect()
        columns = [self.gather(x, dim=1) for x in own[:-2]]
        every: list[Any] = [None] * self.num_ranks
        dist.all_gather_object(every, (own[-2:], *super().running()))
        ended, self._running = map(list, zip(*every, strict=True))
        return Rollout(*columns, *(torch.cat(lists) for lists in zip(*ended, strict=True)))

    def running(self) -> list[dict[str, Any]]:
        """As of `PPO`; of other ranks, what they had at the end of the last rollout."""
        return self._running

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As of `PPO`, called on every rank."""
        super().load_state_dict(state)
        unknown = {"refusal": self.anew}
        self._running = [unknown] * self.num_ranks if self.anew else state["running"]

    def gradient(self, minibatch: Batch) -> Step:
        """The gradient of the whole minibatch, of which each rank has taken its part.

        ∇L = Σ_m b_m/B ∇L_m (eq-ranks-gradient), where rank m has b_m of B steps.
        """
        own = Batch(*(column[self.rank :: self.num_ranks] for column in minibatch))
        share = len(own.obs) / len(minibatch.obs)
        if share > 0:
            step = super().gradient(own)
        else:
            self.optimizer.zero_grad()
            step = Step(*[own.log_probs] * 2, own.dist_params, *[own.log_probs] * 2)
        trained = [p for p in self.parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad * share for p in trained]
        # One vector, since every exchange between ranks costs a message.
        vector = torch.nn.utils.parameters_to_vector(gradients)
        dist.all_reduce(vector)
        parts = vector.split([p.numel() for p in trained])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return step

    def gather(self, x: Tensor, dim: int = 0) -> Tensor:
        """The columns of all ranks: N/M of each become N."""
        sent = x.to(torch.uint8) if x.dtype == torch.bool else x  # not every backend sends bools
        parts = [torch.empty_like(sent) for _ in range(self.num_ranks)]
        dist.all_gather(parts, sent.contiguous())
        return torch.cat(parts, dim).to(x.dtype)

    def mean(self, x: Tensor) -> Tensor:
        """The mean over the rows of all ranks."""
        sums = torch.cat([x.sum(0).flatten(), x.new_tensor([len(x)])])
        dist.all_reduce(sums)
        return (sums[:-1] / sums[-1]).view(x.shape[1:])

    def _make_collector(self) -> Collector:
        return _PartCollector(self)


class _PartCollector(Collector):
    """Draws for the environments of all ranks, and takes this rank's part."""

    def __init__(self, trainer: ParallelPPO) -> None:
        self.rank, self.num_ranks = trainer.rank, trainer.num_ranks
        super().__init__(trainer.envs, seed=trainer._env_seed())

    def _draw(self, policy: Policy, params: Tensor, generator: torch.Generator) -> Tensor:
        drawn = policy.dist.sample(params.repeat(self.num_ranks, 1), generator)
        return drawn.split(len(params))[self.rank]
