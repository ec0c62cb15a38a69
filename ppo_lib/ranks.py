"""Ranks: the processes that train one agent together, by torch.distributed.

``torchrun`` starts them; without it there is one, and every function here hands back what it was
given.  Rank m of M has N/M of the N environments (eq-ranks-gradient): the columns from m N/M on.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks() -> int:
    """M, 1 unless torch.distributed was initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the M processes this is, from 0."""
    return dist.get_rank() if num_ranks() > 1 else 0


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of every rank's tensor, in place; the same bits on every rank."""
    if num_ranks() > 1:
        dist.all_reduce(x)
    return x


def from_first_rank(x: Tensor) -> Tensor:
    """Rank 0's tensor, in place."""
    if num_ranks() > 1:
        dist.broadcast(x, 0)
    return x


def gather_columns(x: Tensor) -> Tensor:
    """The columns of all ranks side by side: ``[T, N/M, …]`` of each becomes ``[T, N, …]``."""
    if num_ranks() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(num_ranks())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts, dim=1)


def gather_lists(items: list[Any]) -> list[Any]:
    """The lists of all ranks, one after the other."""
    if num_ranks() == 1:
        return items
    parts: list[list[Any]] = [[] for _ in range(num_ranks())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
