"""TensorBoard, for who asks for it."""

import math
import warnings
from pathlib import Path
from typing import Self

from ppo_lib.ppo import PPO
from ppo_lib.validate import optional


class TensorBoard:
    """A callback of `PPO.learn` that writes every column of the history; of several ranks, on one.

    It is a context as well, at whose end its file is closed and its thread ends.  Where the events
    can't be written, on a full disk say, a warning says from where on there are none, and training
    goes on.

    Args:
        folder: where the events go; ``tensorboard --logdir FOLDER`` shows them.

    Raises:
        ImportError: if tensorboard is not installed, which ``ppo_lib[tensorboard]`` installs.
    """

    def __init__(self, folder: str | Path) -> None:
        # Only who asks for it waits for the import.
        writer = optional("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer = writer(str(folder))
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._writer.close()
        except OSError as error:
            self._fail("at the end", error)

    def __call__(self, trainer: PPO) -> None:
        """Write the last update's row, against environment steps."""
        if self._failed:
            return
        row = trainer.history.rows[-1]
        try:
            for name, number in row.items():
                if name != "env_steps" and not math.isnan(number):
                    self._writer.add_scalar(name, number, trainer.env_steps)
            self._writer.flush()
        except OSError as error:
            self._fail(f"from {trainer.env_steps:,} steps on", error)

    def _fail(self, when: str, error: OSError) -> None:
        if not self._failed:
            warnings.warn(f"tensorboard: no events are written {when}: {error}", stacklevel=3)
        self._failed = True
