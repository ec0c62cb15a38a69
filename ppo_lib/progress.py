"""A progress bar where a person watches, and none anywhere else."""

import os
import sys

from tqdm import tqdm

from ppo_lib.ranks import rank


def progress_bar(total: int, done: int) -> tqdm:
    """A bar over environment steps.

    It is drawn in a terminal and in a notebook, by the first rank, unless the environment
    variable ``TQDM_DISABLE`` is set, and stays silent in a log or a test.

    Args:
        total: steps at the end.
        done: steps at the start.
    """
    notebook = "ipykernel" in sys.modules
    watched = "TQDM_DISABLE" not in os.environ and (notebook or sys.stderr.isatty())
    watched = watched and rank() == 0
    if watched and notebook:
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar(total=total, initial=done, unit="step")
    return tqdm(total=total, initial=done, unit="step", disable=not watched)
