"""Keeping a run: its checkpoint whatever ends it, its log, and the signals that stop it."""

import glob
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch

from ppo_lib.checkpoint import (
    behind_links,
    history_of,
    plain,
    state_without_history,
    write_checkpoint,
)
from ppo_lib.ppo import PPO

try:
    import fcntl
except ImportError:  # on Windows, where two runs of one file are not told apart
    fcntl = None  # type: ignore[assignment]

SAVE_EVERY = 60.0  #: seconds between two checkpoints, once a run has lasted as long
LOG_EVERY = 60.0  #: seconds between two lines, likewise
FIRST_LINE = 10.0  #: seconds before the first of them
#: Signals that stop training, as far as there are such.
STOPPING = [x for x in signal.Signals if x.name in ("SIGINT", "SIGTERM", "SIGHUP")]


class Keeper:
    """Keeps a trainer in a file: at once, after the first update, then now and then, at the end.

    It is a callback of `PPO.learn`.  What is written is the trainer as it was after an update,
    never in the midst of one, so that training which goes on from the file is the same to the bit.
    What it copies took 0.5 to 1.4% of the time of training on CartPole and Pendulum; it grows with
    the running episodes, whose actions are kept, and not with the run.  A checkpoint that can't be
    written is told on stderr, and tried again later.

    Args:
        trainer: what is kept.
        path: the file.
        options: what else is kept in it, plain data, so that `--resume` knows it.
        new: whether the file must be a new one.

    Attributes:
        steps: of the trainer as it was remembered last.
        written_steps: of the trainer in the file.

    Raises:
        FileExistsError: if it must, and is there.
        OSError: if it can't be written; nothing of it is left.
    """

    def __init__(self, trainer: PPO, path: Path, options: dict[str, Any], *, new: bool) -> None:
        self.path, self.options = path, options
        self._file = path.absolute()  # an environment may change the folder that others start from
        self._due = _now_and_then(0.0, SAVE_EVERY)
        self._failed = False
        self._folders = [folder for folder in self._file.parents if not folder.exists()]
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("xb").close()  # nobody else's from here on
        else:
            there = behind_links(path)
            for part in there.parent.glob(f"{glob.escape(there.name)}.*.part"):
                part.unlink(missing_ok=True)  # of a run that was killed while it wrote
        self.take(trainer)
        try:
            self._write()
        except BaseException:
            if new:
                self.remove()
            raise

    def __call__(self, trainer: PPO) -> None:
        """Remember the trainer as it is, and write it if it is time."""
        self.take(trainer)
        if self._due():
            self.write()

    def write(self) -> bool:
        """Write what is remembered, if it is not written; say so, and give False, if that fails."""
        if self._written:
            return True
        try:
            self._write()
        except OSError as error:
            self._failed = True
            say(f"checkpoint: not written at {self.steps:,} steps: {error}")
            return False
        if self._failed:
            say(f"checkpoint: written again at {self.steps:,} steps")
        self._failed = False
        return True

    def remove(self) -> None:
        """Remove the file, and the folders that were made for it."""
        self._file.unlink(missing_ok=True)
        with suppress(OSError):  # where something else is by now
            for folder in self._folders:
                folder.rmdir()

    def take(self, trainer: PPO) -> None:
        """Remember the trainer as it is after an update."""
        self.steps = trainer.env_steps
        self._state = plain(state_without_history(trainer)) | {"options": self.options}
        # Of what only ever becomes longer its length says enough.
        self._history = {name: (rows, len(rows)) for name, rows in history_of(trainer).items()}
        self._written = False

    def _write(self) -> None:
        history = {name: rows[:length] for name, (rows, length) in self._history.items()}
        write_checkpoint(self._file, self._state | history)
        self._written, self.written_steps = True, self.steps


class Interruption:
    """Lets a signal end training after the update in which it comes; a second one, at once.

    Signals are Ctrl-C, SIGTERM and SIGHUP, the last one unless it is ignored, as under nohup.  It
    is a callback of `PPO.learn`, and a context in which signals are handled.  It is entered once
    environments are made, or their processes would inherit the handlers, and not end when asked;
    SIGTERM and SIGHUP before that end this process as they end any.

    Attributes:
        signal: the first one that came; None before.
        stopped_by: that or another rank's, once training has stopped for it; None before.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.stopped_by: signal.Signals | None = None

    def __enter__(self) -> Self:
        ignored = signal.SIG_IGN
        self._before = {
            number: signal.signal(number, self._come)
            for number in STOPPING
            if number == signal.SIGINT or signal.getsignal(number) != ignored
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, trainer: PPO) -> bool:
        """Whether to stop: ranks hear of it at different moments, and stop after one update."""
        came = trainer.mean(torch.tensor([[float(self.signal == number) for number in STOPPING]]))
        if came.any():
            self.stopped_by = STOPPING[int(came.argmax())]
        return self.stopped_by is not None

    def _come(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


def log() -> Callable[[PPO], None]:
    """A callback that says now and then how far training is, where no bar is drawn."""
    due = _now_and_then(FIRST_LINE, LOG_EVERY)
    drawn = sys.stderr.isatty() and "TQDM_DISABLE" not in os.environ

    def line(trainer: PPO) -> None:
        if not drawn and due():
            total = trainer.config.num_updates * trainer.config.batch_size
            speed = trainer.history.rows[-1]["steps_per_second"]
            say(
                f"{trainer.env_steps:,} of {total:,} steps, {speed:,.0f} a second, "
                f"mean return of the last 20 episodes: {trainer.history.recent_return():.1f}"
            )

    return line


def free_paths(path: Path) -> Iterator[Path]:
    """A path, and others to try where it is taken: a.pt, a-2.pt, a-3.pt and so on."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def refuse_existing(path: Path) -> None:
    """Refuse to write where something is."""
    if path.exists() or path.is_symlink():
        raise FileExistsError(
            f"checkpoint is {path}, which is there already: name another file, or --resume {path}"
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs from a checkpoint, by a lock beside it that ends with this process.

    Raises:
        FileExistsError: if another run has it.
    """
    if fcntl is None:
        yield
        return
    there = behind_links(path).absolute()
    lock = there.with_name(f"{there.name}.lock")
    with lock.open("ab") as file:
        try:
            # Not `flock`, which processes of environments would inherit, and keep.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat())
        except (BlockingIOError, PermissionError):
            mine = False
        except OSError:  # a file system without locks
            mine = True
        if not mine:
            raise FileExistsError(
                f"checkpoint is {path}, which another run is kept in: wait for its end, or name "
                "another file with --checkpoint"
            )
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def printing() -> Iterator[None]:
    """What is printed inside is out at the end; nobody need read it, as in ``… | true``.

    Raises:
        OSError: if it can't be written, on a full disk or to a terminal that is gone.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it fails at exit, too
        if not isinstance(error, BrokenPipeError):
            raise


def say(line: str) -> None:
    """A line on stderr, at once; a terminal that is gone ends nothing."""
    try:
        print(line, file=sys.stderr)  # which is written line by line
    except OSError:
        return


def _now_and_then(first: float, every: float) -> Callable[[], bool]:
    """Whether it is time: after ``first`` seconds, then at doubling times, then ``every`` so many.

    It is time once the last time is as long ago as that was from the start.
    """
    began = last = time.monotonic()

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < min(every, max(first, last - began)):
            return False
        last = now
        return True

    return due
