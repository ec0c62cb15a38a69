"""Running scales of observations and rewards."""

import torch
from torch import Tensor, nn

from ppo_lib.validate import in_unit_interval, require, same_shape


class RunningMoments(nn.Module):
    """Mean and variance of all rows so far.

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
        """Count rows ``[..., D]``, one or more, in (Chan, Golub and LeVeque 1979)."""
        found, size = tuple(rows.shape), len(self.mean)
        require(found[-1:] == (size,), f"rows has shape {found}, expected (..., {size})")
        require(rows.numel() > 0, f"rows has shape {found}, expected at least one row")
        deviations = (rows.to(self.mean) - self.mean).reshape(-1, len(self.mean))
        total = self.count + len(deviations)
        shift, square = deviations.sum(0) / total, (deviations**2).sum(0) / total
        # Around the old mean the old rows have the mean square var, which `square` tops up.
        self.var.copy_((self.var * self.count / total + square - shift**2).clamp(min=0.0))
        self.mean.add_(shift)
        self.count.copy_(total)


class ObsNormalizer(RunningMoments):
    """Observations less their running mean, over their running standard deviation.

    It is the first layer of actor and critic, so that it is saved, restored and used in
    evaluation with them.  Its statistics change only between two updates: within one, a state
    looks the same to the policy that acted, to the one that learns, and to the critic.  A feature
    that has never varied is centred and not scaled.

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

    def start(self, obs: Tensor) -> None:
        """Take the first observations ``[N, size]``, before a first rollout has been collected.

        So few tell where a feature lies, and little of how far it will vary: it is scaled down
        by their spread, and never up.  Where rows were counted before, nothing is done.
        """
        if self.count > 0:
            return
        self.update(obs)
        self.scale.clamp_(max=1.0)

    def update(self, rows: Tensor) -> None:
        """Count rows ``[..., size]`` in."""
        super().update(rows)
        self.center.copy_(self.mean)
        self.scale.copy_(torch.where(self.var > 0, (self.var + 1e-8).rsqrt(), 1.0))

    def forward(self, obs: Tensor) -> Tensor:
        """Normalise."""
        if obs.shape[-1:] != self.center.shape:  # or it would be broadcast
            found, size = tuple(obs.shape), len(self.center)
            raise ValueError(f"obs has shape {found}, expected (..., {size})")
        return ((obs - self.center) * self.scale).clamp(-10.0, 10.0)


class RewardNormalizer(RunningMoments):
    """Rewards over the running standard deviation of the discounted sum of rewards so far.

    The sum G_t = r_t + γ G_{t-1} runs forward within an episode; it only sets a scale.  Rewards
    are not shifted, which would change what is optimal when episodes end.  What comes out is
    within ±10, as in OpenAI's baselines: where the sum has hardly varied, the scale means nothing.
    As there, 1e-8 is added to the variance: sums that vary by less than 1e-4 come out small.

    Args:
        num_envs: N, environments.
        gamma: the discount γ, in [0, 1].
    """

    sums: Tensor
    limit = 10.0  #: what comes out is within ± this

    def __init__(self, num_envs: int, *, gamma: float) -> None:
        super().__init__(1)
        in_unit_interval("gamma", gamma)
        self.gamma = gamma
        self.register_buffer("sums", torch.zeros(num_envs), persistent=False)

    def forward(self, rewards: Tensor, ended: Tensor, mask: Tensor) -> Tensor:
        """Count a rollout's rewards in, and scale them.

        Args:
            rewards: ``[T, N]``.
            ended: ``[T, N]`` bool, True at the last step of an episode.
            mask: ``[T, N]`` bool, False where an environment has reset itself instead of a step.

        Returns:
            ``[T, N]``.
        """
        same_shape(rewards=rewards, ended=ended, mask=mask)
        sums = []
        for paid, ends in zip(rewards, ended, strict=True):
            self.sums = paid + self.gamma * self.sums
            sums.append(self.sums)
            self.sums = self.sums.masked_fill(ends, 0.0)
        self.update(torch.stack(sums)[mask].unsqueeze(-1))
        return (rewards / (self.var + 1e-8).sqrt().float()).clamp(-self.limit, self.limit)
