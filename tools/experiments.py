"""The room in which experiments are run: what is missing is made, and stored as it comes.

A *case* is what is varied, and a *run* is one case with one seed.  A run gives columns: numbers,
or lists of numbers.  What is stored says what the runs were made with; runs of other settings,
another processor, commit, Python, torch, gymnasium or numpy are not added to it.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from stored import store, versions

ROOT = Path(__file__).resolve().parents[1]
#: What training depends on, for git.
LIBRARY = ("ppo_lib", ":!ppo_lib/book", ":!ppo_lib/shell", ":!ppo_lib/language")
#: What the language models depend on.
LANGUAGE = (
    "ppo_lib/language",
    *(f"ppo_lib/{room}.py" for room in ("distributions", "objectives", "returns", "validate")),
)
Run = Any  #: what one run gives: columns by name, unless a subclass stores something else
Job = tuple[str, int]  #: a case and a seed


@dataclass
class Experiment:
    """Runs of some cases, in a file."""

    command: str  #: that makes them again
    data: Path
    code: tuple[str, ...]  #: the files, relative to `ROOT`, on whose commit the runs depend
    settings: dict[str, Any]  #: what they depend on beside it
    train: Callable[[list[Job]], list[Run]]  #: some jobs to their runs; a function that pickles
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)  #: what is told of each
    key: str = "cases"  #: where the file holds them

    def __post_init__(self) -> None:
        """Take up what is stored."""
        kept = json.loads(self.data.read_text(encoding="utf-8")) if self.data.is_file() else {}
        self.kept = {name: value for name, value in kept.items() if name != self.key}
        self.runs: dict[str, dict[int, Run]] = self.read(kept.get(self.key, {}))

    def read(self, entries: dict[str, Any]) -> dict[str, dict[int, Run]]:
        """The runs of each case by their seeds, as `write` has left them."""
        return {case: _rows(entry) for case, entry in entries.items()}

    def write(self) -> dict[str, Any]:
        """A column for each number of the runs, and the seeds."""
        entries = {}
        for case, runs in self.runs.items():
            seeds = sorted(runs)
            columns = {name: [runs[s][name] for s in seeds] for name in runs[seeds[0]]}
            entries[case] = self.cases.get(case, {}) | {"seeds": seeds} | columns
        return entries

    def missing(self, groups: Iterable[Iterable[Job]]) -> list[list[Job]]:
        """Of groups of jobs, those whose runs are not stored yet."""
        left = ([(c, s) for c, s in group if s not in self.runs.get(c, {})] for group in groups)
        return [group for group in left if group]

    def go_on(self, groups: Iterable[Iterable[Job]], processes: int) -> None:
        """Make the runs that are missing, and store all after every group.

        Args:
            groups: jobs; those of one group are made by one call of ``train``.
            processes: how many groups are made at once.

        Raises:
            SystemExit: if what is stored was made with something else.
        """
        todo = self.missing(groups)
        if not todo:
            return
        made_by = json.loads(json.dumps(self.settings | made_at(self.code)))
        kept = self.kept | self.kept.get("made_with", {})
        for name, value in (made_by | versions()).items() if self.kept else ():
            if (had := kept.get(name)) != value:
                raise SystemExit(f"{self.data} has {name} {had}, here it is {value}: remove it")
        with ProcessPoolExecutor(processes, initializer=_alone) as executor:
            done = executor.map(self.train, todo)
            for i, (group, runs) in enumerate(zip(todo, done, strict=True), start=1):
                for (case, seed), run in zip(group, runs, strict=True):
                    self.runs.setdefault(case, {})[seed] = run
                print(f"{i} of {len(todo)}: {len(group)} of {group[0][0]}", flush=True)
                self.kept = made_by | {"made_with": versions()}
                store(self.data, again(self.command), made_by | {self.key: self.write()})


def _rows(entry: dict[str, Any]) -> dict[int, Run]:
    """The runs of a case by their seeds; those of 0, 1, 2, … where the file names none."""
    columns = {name: value for name, value in entry.items() if isinstance(value, list)}
    seeds = columns.pop("seeds", range(len(next(iter(columns.values()), ()))))
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return dict(zip(seeds, rows, strict=True))


def _alone() -> None:
    torch.set_num_threads(1)


def again(command: str) -> str:
    """What makes the runs of this process again: the command, unless other seeds were asked for."""
    if not any(word.partition("=")[0] == "--first" for word in sys.argv):
        return command
    kernels = os.environ.get("ATEN_CPU_CAPABILITY")
    told = [] if kernels is None else [f"ATEN_CPU_CAPABILITY={kernels}"]
    return " ".join([*told, shlex.join(["python", *sys.argv])])


def made_at(code: Iterable[str]) -> dict[str, str]:
    """The commit that last changed the files, and the processor."""
    diff = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], cwd=ROOT, check=False)
    log = ["git", "log", "-1", "--format=%h", "--", *code]
    commit = subprocess.run(log, cwd=ROOT, check=False, capture_output=True, text=True).stdout
    # An unpacked archive has no history.
    return {
        "commit": (commit.strip() or "none") + (", changed" if diff.returncode else ""),
        "processor": processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
    }


def processor() -> str:
    """What the machine calls its processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def arguments(doc: str, *, cases: Iterable[str] = ()) -> argparse.ArgumentParser:
    """What every command takes: seeds, the first of them, cases if any, a file, processes."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds, 200 say")
    if named := list(cases):
        parser.add_argument("--only", nargs="+", choices=named, default=named)
    parser.add_argument("--data", type=Path, help="another file than the book's")
    parser.add_argument("--processes", type=int, default=2)
    return parser


def seeds_of(args: argparse.Namespace, count: int) -> range:
    """The seeds that a command was asked for; ``count`` of them if it was not told how many.

    Raises:
        SystemExit: if others than the book's would be added to its file.
    """
    if args.first and not args.data:
        raise SystemExit(f"--first {args.first} needs --data, a file of its own")
    return range(args.first, args.first + (args.seeds or count))
