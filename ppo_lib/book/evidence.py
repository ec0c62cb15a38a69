"""What some runs say: the middle of what they earned, how sure that is, and which earn more.

Agarwal et al. (2021), arXiv:2108.13264; chapter 13 works each of these by hand.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_lib.validate import require

DRAWS = 4000  #: of a bootstrap
DRAWS_OF_TAILS = 10_000  #: where its far ends are asked for


class Chance(NamedTuple):
    """The chance that a run of one setting earns more than a run of another."""

    share: float  #: of all pairs of their runs, a tie counted as a half; ½ between equals
    low: float  #: the lower end of its bootstrap interval
    high: float  #: the upper end
    p: float = 0.0  #: `permutation_p` of the runs, times the number of comparisons

    @property
    def word(self) -> str:
        """*More* or *less* where the interval leaves out ½ and p is small, else *undecided*."""
        if self.p > 0.05:
            return "undecided"
        return "more" if self.low > 0.5 else "less" if self.high < 0.5 else "undecided"

    def __str__(self) -> str:
        """The share, its interval and the word."""
        return f"{self.share:.2f} ({self.low:.2f} to {self.high:.2f}), {self.word}"


def middle(runs: np.ndarray) -> np.ndarray:
    """The interquartile mean: that of the middle half of the runs.

    Args:
        runs: ``[seeds, …]``; of the ordered ones a quarter, rounded down, is left out at each end.

    Returns:
        ``[…]``.
    """
    ordered, cut = np.sort(runs, axis=0), len(runs) // 4
    return ordered[cut : len(runs) - cut].mean(axis=0)


def interval(runs: np.ndarray) -> np.ndarray:
    """The bootstrap interval of `middle`, 95%: that of runs drawn again with replacement.

    Args:
        runs: ``[seeds, …]``.

    Returns:
        ``[2, …]``, its lower and its upper end.
    """
    dice = np.random.default_rng(1)
    again = runs[dice.integers(0, len(runs), (DRAWS, len(runs)))]
    return np.quantile(middle(again.swapaxes(0, 1)), [0.025, 0.975], axis=0)


def chance(first: np.ndarray, second: np.ndarray, *, comparisons: int = 1) -> Chance:
    """The chance that a run of the first setting earns more than one of the second.

    Args:
        first: ``[n]``, what its runs have earned.
        second: ``[m]``.
        comparisons: how many are made at once; the interval is one of ``1 - 0.05 / comparisons``.

    Raises:
        ValueError: if one of them is no list of runs, or ``comparisons`` is below 1.
    """
    for name, runs in (("first", first), ("second", second)):
        good = runs.ndim == 1 and len(runs) > 0
        require(good, f"{name} has the shape {runs.shape}, expected one of at least one run")
    require(comparisons >= 1, f"comparisons is {comparisons}, expected at least 1")
    dice = np.random.default_rng(2)
    wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)
    weights = [dice.multinomial(n, np.full(n, 1 / n), DRAWS_OF_TAILS) / n for n in wins.shape]
    again = (weights[0] @ wins * weights[1]).sum(axis=1)
    tail = 0.025 / comparisons
    ends = np.quantile(again, [tail, 1 - tail]).tolist()
    return Chance(float(wins.mean()), *ends, permutation_p(first, second) * comparisons)


def permutation_p(first: np.ndarray, second: np.ndarray) -> float:
    """How often runs that are shared out at random lie as far apart as these do, or farther.

    Exact over all ways to share out the runs: the test of Mann and Whitney, on the sum of the first
    setting's ranks, ties sharing theirs, on both sides.  It needs no draws and no large number of
    runs, as the interval of a chance does.

    Args:
        first: ``[n]``, what the runs of one setting have earned.
        second: ``[m]``.
    """
    runs, n = np.concatenate([first, second]), len(first)
    ranks = 1 + (runs[:, None] > runs).sum(axis=1) + (runs[:, None] >= runs).sum(axis=1)  # doubled
    ways = np.zeros((n + 1, ranks.sum() + 1))  # to choose so many runs with that sum of ranks
    ways[0, 0], end = 1, 1
    for rank in ranks:
        end += rank
        ways[1:, rank:end] += ways[:-1, : end - rank]
    away = np.abs(np.arange(ways.shape[1]) - n * (len(runs) + 1))
    far = away >= np.abs(ranks[:n].sum() - n * (len(runs) + 1))
    return float(ways[n, far].sum() / ways[n].sum())


def area(steps: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """The mean return over the budget, where an evaluation counts until the next one.

    Args:
        steps: ``[P]``, rising from 0.
        returns: ``[…, P]``.

    Returns:
        ``[…]``, the area under each curve over its width.
    """
    return (returns[..., :-1] * np.diff(steps)).sum(-1) / steps[-1]


def read_runs(path: str | Path, command: str) -> dict[str, Any]:
    """What a command has stored.

    Raises:
        FileNotFoundError: if there is no such file; it names the command that writes it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {path}, where no file is; `{command}` writes it")
    return json.loads(path.read_text(encoding="utf-8"))
