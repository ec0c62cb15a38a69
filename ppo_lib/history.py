"""What training leaves behind: a row for every update, to be read, drawn or compared."""

import math
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from ppo_lib.rollout import Rollout
from ppo_lib.validate import optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History:
    """Rows of numbers, one an update; ``history["approx_kl"]`` is a column.

    Columns: ``env_steps`` so far; ``policy_loss``, ``value_loss``, ``entropy``, ``approx_kl`` and
    ``clip_fraction``, each the mean over the rows of all the update's minibatches; ``grad_norm``
    before it was scaled down, the mean over the gradient steps; ``gradient_steps``, their number;
    ``explained_variance`` of the critic before the update; ``learning_rate``; ``clip_range`` ε;
    with the loss "kl", ``kl_coef`` β; with ``normalize_rewards``, ``reward_clip_fraction``, the
    share of rewards that were cut to ±10; ``steps_per_second``; ``episode_return`` and
    ``episode_length``, the means of the episodes that ended while the data was collected, NaN if
    none did; with `KeepBest`, ``evaluation`` or its ``column``, the mean return of its episodes.

    Where ``reward_clip_fraction`` is large, rewards vary little about a number far from 0, and the
    cut takes away what tells good from bad: subtract that number, or do not normalise.

    Attributes:
        rows: one dictionary an update.
        episodes: for every episode that ended, (environment steps at the end of its rollout,
            return, length).
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.episodes: list[tuple[int, float, int]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> np.ndarray:
        """One column, ``[updates]`` float64; NaN where an update has no such number."""
        names = {name for row in self.rows for name in row}
        if self.rows and name not in names:
            raise KeyError(f"name is {name!r}, expected one of {sorted(names)}")
        return np.array([row.get(name, math.nan) for row in self.rows], dtype=np.float64)

    def append(self, row: dict[str, float], rollout: Rollout) -> None:
        """Add an update's row, and the episodes that ended in its rollout."""
        returns, lengths = rollout.episode_returns, rollout.episode_lengths
        ended = list(zip(returns.tolist(), lengths.tolist(), strict=True))
        self.episodes += [(int(row["env_steps"]), *episode) for episode in ended]
        means = np.mean(ended, axis=0).tolist() if ended else [math.nan, math.nan]
        self.rows.append(row | dict(zip(("episode_return", "episode_length"), means, strict=True)))

    def recent_return(self, episodes: int = 20) -> float:
        """The mean return of the last episodes that ended; NaN before the first."""
        recent = [r for _, r, _ in self.episodes[-episodes:]]
        return float(np.mean(recent)) if recent else float("nan")

    def plot(self) -> "Figure":
        """Draw the columns that tell how training went, against environment steps.

        Raises:
            ImportError: if matplotlib is not installed, which ``ppo_lib[book]`` installs.
        """
        columns = [
            ("episode_return", "episode return"),
            ("explained_variance", "explained variance"),
            ("entropy", "entropy (nats)"),
            ("approx_kl", "approximate KL (nats)"),
            ("clip_fraction", "clip fraction"),
            ("value_loss", "value loss"),
        ]
        figure = optional("matplotlib.figure", "book").Figure(
            figsize=(5.2, 6), layout="constrained"
        )
        panels = figure.subplots(3, 2, sharex=True)
        for axes, (name, title) in zip(panels.flat, columns, strict=True):
            axes.plot(self["env_steps"], self[name])
            axes.set_title(title)
        for axes in panels[-1]:
            axes.set_xlabel("environment steps")
        return figure


def progress_bar(total: int, done: int, *, wanted: bool) -> tqdm:
    """A bar over environment steps, drawn in a terminal and in a notebook only.

    Args:
        total: steps at the end.
        done: steps at the start.
        wanted: whether to draw it at all; nor is it drawn where ``TQDM_DISABLE`` is set.
    """
    notebook = "ipykernel" in sys.modules
    watched = wanted and "TQDM_DISABLE" not in os.environ and (notebook or sys.stderr.isatty())
    if watched and notebook:
        from tqdm.auto import tqdm as notebook_bar  # a plain bar where there are no widgets

        return notebook_bar(total=total, initial=done, unit="step")
    return tqdm(total=total, initial=done, unit="step", disable=not watched)
