"""Running scales of observations and rewards, the same on every rank."""

import torch
from torch import Tensor, nn

from ppo_lib.ranks import sum_over_ranks
from ppo_lib.rollout import Rollout
from ppo_lib.validate import in_unit_interval, require


class RunningMoments(nn.Module):
    """Mean and variance of all rows seen so far, by all ranks.

    Args:
        size: D, numbers in a row.

    Attributes:
        count: how many rows, a float64 scalar.
        mean: ``[D]`` float64, 0 before the first row.
        var: ``[D]`` float64, the mean squared deviation, 1 before the first row.
    """

    count: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        require(size >= 1, f"size is {size}, expected at least 1")
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Count rows ``[..., D]`` in (Chan, Golub and LeVeque 1979)."""
        deviations = (rows.to(self.mean) - self.mean).reshape(-1, len(self.mean))
        sums = torch.cat([deviations.sum(0), (deviations**2).sum(0)])
        # One tensor, since every exchange between ranks costs a message.
        sums = sum_over_ranks(torch.cat([sums, sums.new_tensor([len(deviations)])]))
        new, total = sums[-1], self.count + sums[-1]
        shift, square = sums[:-1].view(2, -1) / total
        # Around the old mean the old rows have the mean square var, which `square` tops up.
        spread = self.var * self.count / total + square - shift**2
        self.var.copy_(spread.clamp(min=0.0))
        self.mean.add_(shift)
        self.count.add_(new)


class ObsNormalizer(RunningMoments):
    """Observations less their running mean, over their running standard deviation.

    It is the first layer of actor and critic, so that it is saved, restored and used in
    evaluation with them.  Its statistics change only between two updates: within one, a state
    looks the same to the policy that acted, to the one that learns, and to the critic.

    Args:
        size: the number of features of an observation.

    Attributes:
        center: ``[size]`` float32, the mean.
        scale: ``[size]`` float32, 1 over the standard deviation.

    ``forward`` takes observations ``[..., size]`` float32 and gives the same shape, within ±10.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__(size)
        # Kept, since they are used thousands of times between two updates.
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def update(self, rows: Tensor) -> None:
        """Count rows ``[..., size]`` in."""
        super().update(rows)
        self.center.copy_(self.mean)
        self.scale.copy_((self.var + 1e-8).rsqrt())

    def forward(self, obs: Tensor) -> Tensor:
        """Normalise."""
        return ((obs - self.center) * self.scale).clamp(-10.0, 10.0)


class RewardNormalizer(RunningMoments):
    """Rewards over the running standard deviation of the discounted sum of rewards so far.

    The sum G_t = r_t + γ G_{t-1} runs forward within an episode; it only sets a scale.  Rewards
    are not shifted, which would change what is optimal when episodes end.

    Args:
        num_envs: N, environments of this rank.
        gamma: the discount γ, in [0, 1].
    """

    def __init__(self, num_envs: int, *, gamma: float) -> None:
        super().__init__(1)
        in_unit_interval("gamma", gamma)
        self.gamma = gamma
        self._sums = torch.zeros(num_envs)

    def forward(self, rollout: Rollout) -> Tensor:
        """Count a rollout in, and scale its rewards, ``[T, N]``."""
        sums, ended = [], rollout.terminated | rollout.truncated
        for rewards, ends in zip(rollout.rewards, ended, strict=True):
            self._sums = rewards + self.gamma * self._sums
            sums.append(self._sums)
            self._sums = self._sums.masked_fill(ends, 0.0)
        self.update(torch.stack(sums).unsqueeze(-1))
        return rollout.rewards / (self.var + 1e-8).sqrt().float()
