"""The best agent so far, which is not always the last."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ppo_lib.checkpoint import env_of, write_checkpoint
from ppo_lib.envs import MakeEnv
from ppo_lib.evaluate import evaluate
from ppo_lib.validate import require


class KeepBest:
    """A callback of `PPO.learn` that evaluates now and then, and keeps the best agent in a file.

    Each evaluation plays the same episodes, in environments of its own and with the most probable
    actions, and changes nothing of what is learned.  Its mean is in the history, in a column
    of its update.  The best one so far is looked up there, so that training that
    goes on from a checkpoint remembers it.

    Args:
        path: the file, a checkpoint as `PPO.save` writes it.
        every: environment steps between two evaluations, at least 1; after the last update there
            is one, too.
        env: as in `evaluate`; needed where the trainer was not given an id.
        num_episodes: of an evaluation, at least 1.
        column: in the history; of several of these each needs one of its own.
        seed: of its environments, far from training's.  What was chosen on these episodes looks
            better on them than it is: it is to be judged on others.

    Raises:
        ValueError: if a number is out of range, or, when it is called, without an environment, or
            if the column is one that the history has already.
    """

    def __init__(
        self,
        path: str | Path,
        every: int,
        *,
        env: str | MakeEnv | None = None,
        num_episodes: int = 20,
        column: str = "evaluation",
        seed: int = 1_000_000,
    ) -> None:
        require(every >= 1, f"every is {every}, expected at least 1")
        require(num_episodes >= 1, f"num_episodes is {num_episodes}, expected at least 1")
        self.path, self.every, self.num_episodes, self.seed = Path(path), every, num_episodes, seed
        self.env, self.column = env, column
        self._unwritten: dict[str, Any] | None = None

    def __call__(self, trainer: Any) -> None:
        """Evaluate if it is time, and write the agent if it is the best so far."""
        config, steps = trainer.config, trainer.env_steps
        last = steps // config.batch_size >= config.num_updates
        if steps // self.every == (steps - config.batch_size) // self.every and not last:
            return
        row = trainer.history.rows[-1]
        require(
            self.column not in row,
            f"column is {self.column!r}, which the history has from elsewhere, expected another",
        )
        env, more = self.env, {}
        if env is None:
            env, kwargs, wrappers = env_of({"env": trainer.env_name}, "the trainer", asked=True)
            more = {"env_kwargs": kwargs, "wrappers": wrappers}
        returns = evaluate(
            trainer.policy, env, num_episodes=self.num_episodes, seed=self.seed, **more
        )
        best = best_evaluation(trainer.history, self.column)
        row[self.column] = mean = returns.mean().item()
        if best is None or mean > best[1]:
            self._unwritten = trainer.state_dict()
        self.write()

    def write(self) -> bool:
        """Write what is still to be written; a warning, and False, if that fails."""
        if self._unwritten is None:
            return True
        try:
            write_checkpoint(self.path, self._unwritten)
        except OSError as error:
            steps = self._unwritten["env_steps"]
            warnings.warn(f"the best agent, at {steps:,} steps, is not kept: {error}", stacklevel=2)
            return False
        self._unwritten = None
        return True


def best_evaluation(history: Any, column: str = "evaluation") -> tuple[int, float] | None:
    """The steps and the mean of the first best evaluation in a history; None without any."""
    rows = [row for row in history.rows if column in row]
    if not rows:
        return None
    best = rows[int(np.argmax([row[column] for row in rows]))]
    return int(best["env_steps"]), best[column]
