"""TensorBoard, for who asks for it."""

import math
from pathlib import Path

from ppo_lib.ppo import PPO
from ppo_lib.ranks import rank


class TensorBoard:
    """A callback of `PPO.learn` that writes every column of the history.

    Args:
        folder: where the events go; ``tensorboard --logdir FOLDER`` shows them.

    Raises:
        ModuleNotFoundError: if the package tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        # Only the first rank writes, and only who asks for it waits for the import.
        if rank() == 0:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def __call__(self, trainer: PPO) -> None:
        """Write the last update's row, against environment steps."""
        if rank() > 0:
            return
        row = trainer.history.rows[-1]
        for name, number in row.items():
            if name != "env_steps" and not math.isnan(number):
                self._writer.add_scalar(name, number, trainer.env_steps)
        self._writer.flush()
