"""Measure `ppo_lib.PPO` against the PPO of other libraries, one process at a time on one core.

Usage: ``make bench``, or ``python bench/run.py`` once ``.venv-peers`` holds what
``bench/requirements.txt`` names.  The tasks are

- ``cartpole``: CartPole-v1 at each library's own settings, until it is solved, and
  Stable-Baselines3 at ours as well;
- ``common``: the speed of the whole training loop at one setting for all;
- ``pendulum``: Pendulum-v1, 200,000 steps, where a library documents settings for it;
- ``cold``: a whole process that imports the library, builds the trainer and does one update of the
  common setting, 256 steps and 20 gradient steps; the imports alone are told apart.

Every run is stored, and what failed is stored with its error; the file is written after each
run.  A new measurement replaces the file.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
LIMIT = 1800  # seconds; the slowest peer needs a fifth of it for 200,000 steps


@dataclass(frozen=True)
class Peer:
    """A library with its settings."""

    module: str
    """Its runner in ``bench/peers``."""
    tasks: tuple[str, ...]
    """What it is measured on."""


PEERS = {
    "ppo_lib": Peer("ours", ("cartpole", "common", "pendulum", "cold")),
    "ppo_lib-array": Peer("ours", ("common",)),
    "sb3-zoo": Peer("sb3", ("cartpole", "common", "pendulum", "cold")),
    "sb3-ours": Peer("sb3", ("cartpole",)),
    "sb3": Peer("sb3", ("cartpole",)),
    "sbx": Peer("sbx", ("cartpole", "common", "cold")),
    "tianshou": Peer("tianshou", ("cartpole", "common", "cold")),
    "torchrl": Peer("torchrl", ("cartpole", "common", "cold")),
}
# what the table shows of each task: the key in a run, and the format of its number
SHOWN = {
    "cartpole": {
        "seconds_to_first": ".2f",
        "seconds_to_two": ".2f",
        "steps_to_first": ",.0f",
        "steps_to_two": ",.0f",
        "steps_per_second": ",.0f",
    },
    "common": {"steps_per_second": ",.0f"},
    "pendulum": {"mean_return": ".0f", "steps_per_second": ",.0f"},
    "cold": {"wall_seconds": ".2f", "import_seconds": ".2f"},
}
LIBRARIES = (
    "torch",
    "numpy",
    "gymnasium",
    "stable-baselines3",
    "sbx-rl",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "tfp-nightly",
    "tianshou",
    "torchrl",
    "tensordict",
)
ASK_VERSIONS = """
import importlib.metadata, json, platform, sys
import ppo_lib
versions = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
versions |= {"ppo_lib": ppo_lib.__version__, "python": platform.python_version()}
print(json.dumps(versions))
"""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


def describe_machine() -> dict[str, Any]:
    """The processor, its cores, and the versions of everything measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    answer = subprocess.run(
        [PYTHON, "-c", ASK_VERSIONS, *LIBRARIES],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "versions": json.loads(answer.stdout),
    }


def plan(tasks: list[str], peers: list[str], num_seeds: int) -> Iterator[tuple[str, int, str]]:
    """Task, seed and peer of every run; each seed begins with another peer.

    So what changes slowly about the machine, its heat say, falls on all peers alike.
    """
    for task in tasks:
        ready = [peer for peer in peers if task in PEERS[peer].tasks]
        for seed in range(num_seeds):
            shift = seed % max(len(ready), 1)
            for peer in ready[shift:] + ready[:shift]:
                yield task, seed, peer


def run(task: str, seed: int, peer: str) -> dict[str, Any]:
    """One run in a process of its own: what the runner printed last, or its error."""
    command = [PYTHON, "-m", f"bench.peers.{PEERS[peer].module}", peer, task, str(seed)]
    began = time.perf_counter()
    result: dict[str, Any]
    try:
        process = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | ONE_THREAD | {"BENCH_STARTED": str(time.time())},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        result = {"error": f"stopped after {LIMIT} seconds"}
    else:
        wall_seconds = time.perf_counter() - began
        if process.returncode == 0:
            result = json.loads(process.stdout.splitlines()[-1]) | {"wall_seconds": wall_seconds}
        else:
            result = {"error": process.stderr.strip() or f"exit status {process.returncode}"}
    return {"task": task, "peer": peer, "seed": seed} | result


def store(out: Path, report: dict[str, Any]) -> None:
    """Write the file anew, in one move, so that an interrupt never leaves half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".part")
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    unfinished.replace(out)


def show(number: float | None, form: str) -> str:
    """A number, or a dash for what was not reached."""
    return "—" if number is None or math.isinf(number) else format(number, form)


def show_run(row: dict[str, Any]) -> str:
    """One line about one run."""
    if "error" in row:
        seen = f"FAILED: {row['error'].splitlines()[-1]}"
    else:
        seen = "  ".join(f"{key} {show(row[key], f)}" for key, f in SHOWN[row["task"]].items())
    return f"{row['task']:9} seed {row['seed']}  {row['peer']:13} {seen}"


def table(rows: list[dict[str, Any]], task: str) -> Iterator[str]:
    """Medians and ranges of one task; what was not reached counts as infinite."""
    yield f"\n{task}: median (least to greatest)"
    yield "  ".join([f"{'':13}", *(f"{key:>28}" for key in SHOWN[task]), "runs"])
    for peer in dict.fromkeys(row["peer"] for row in rows if row["task"] == task):
        mine = [row for row in rows if (row["task"], row["peer"]) == (task, peer)]
        good = [row for row in mine if "error" not in row]
        cells = []
        for key, form in SHOWN[task].items():
            values = [math.inf if row[key] is None else row[key] for row in good] or [math.inf]
            middle, *ends = (show(f(values), form) for f in (median, min, max))
            cells.append(f"{f'{middle} ({ends[0]} to {ends[1]})':>28}")
        yield "  ".join([f"{peer:13}", *cells, f"{len(good)} of {len(mine)}"])


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--tasks", nargs="+", choices=SHOWN, default=list(SHOWN))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--out", type=Path, default=ROOT / "book" / "_data" / "bench.json")
    args = parser.parse_args()

    report = describe_machine() | {"runs": []}
    if hasattr(os, "sched_setaffinity"):  # Linux; every process started from here inherits it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for task, seed, peer in plan(args.tasks, args.peers, args.seeds):
        row = run(task, seed, peer)
        report["runs"].append(row)
        store(args.out, report)
        print(show_run(row), flush=True)
    for task in args.tasks:
        print("\n".join(table(report["runs"], task)))


if __name__ == "__main__":
    main()
