"""TensorBoard, for who asks for it."""

import math
from pathlib import Path
from typing import Self

from ppo_lib.ppo import PPO
from ppo_lib.validate import optional


class TensorBoard:
    """A callback of `PPO.learn` that writes every column of the history; of several ranks, on one.

    It is a context as well, at whose end its file is closed and its thread ends.

    Args:
        folder: where the events go; ``tensorboard --logdir FOLDER`` shows them.

    Raises:
        ImportError: if tensorboard is not installed, which ``ppo_lib[tensorboard]`` installs.
    """

    def __init__(self, folder: str | Path) -> None:
        # Only who asks for it waits for the import.
        writer = optional("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer = writer(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def __call__(self, trainer: PPO) -> None:
        """Write the last update's row, against environment steps."""
        row = trainer.history.rows[-1]
        for name, number in row.items():
            if name != "env_steps" and not math.isnan(number):
                self._writer.add_scalar(name, number, trainer.env_steps)
        self._writer.flush()
