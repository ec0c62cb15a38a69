"""Run notebooks and tests on this machine as on others: a row each, passed or failed.

Usage: ``python tools/matrix.py [--quick] [ROW …] [--paths …]``; without a name, every row.

A row sets what differs between machines: the instructions that torch and MKL take (AMD processors
get MKL's compatible path), the threads, the seed of Python's hashes, the order of the tests, the
folder, the user, the network.  ``--quick`` runs three notebooks and the tests that are not slow.
"""

import argparse
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "_build" / "matrix"
QUICK_NOTEBOOKS = ("01-*", "05-*", "07-*")
SLOW = ("climbs", "kills", "language_model", "package", "probes", "ranks", "shell")


@dataclass(frozen=True)
class Row:
    """One run: what its environment has and has not, and where and as whom it goes."""

    sets: dict[str, str] = field(default_factory=dict)
    folder: str | None = None  #: the name of a folder that it is copied to
    user: str | None = None
    offline: bool = False


ROWS = {
    "native": Row(),
    "avx2": Row({"ATEN_CPU_CAPABILITY": "avx2"}),
    "default": Row({"ATEN_CPU_CAPABILITY": "default"}),
    "mkl": Row({"MKL_CBWR": "COMPATIBLE"}),
    "threads": Row({"TEST_THREADS": "2"}),
    "hash": Row({"PYTHONHASHSEED": "4711"}),
    "order": Row({"TEST_ORDER": "1", "PYTHONHASHSEED": "1"}),
    "space": Row(folder="a folder with spaces"),
    "user": Row(folder="copy", user="nobody"),
    "offline": Row(offline=True),
}
#: Of another machine nothing is taken over by chance.
VARIED = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "PYTHONHASHSEED", "TEST_THREADS", "TEST_ORDER")
#: In a network of its own a process has an address for itself, which is switched off at first.
LOOPBACK = """
import fcntl, os, socket, struct, sys
name = struct.pack("16sh14x", b"lo", 0x41)  # up, and running
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, name)
os.execvp(sys.argv[1], sys.argv[1:])
"""
#: Whether an interpreter can start itself, as pytest's workers and kernels do.
AGAIN = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', '']))"


def paths(folder: Path, *, quick: bool) -> list[str]:
    """What pytest runs."""
    if not quick:
        return ["book", "tests"]
    notebooks = [path for name in QUICK_NOTEBOOKS for path in folder.glob(f"book/{name}.ipynb")]
    tests = [
        path
        for path in folder.glob("tests/test_*.py")
        if path.stem.removeprefix("test_") not in SLOW
    ]
    return sorted(str(path.relative_to(folder)) for path in [*notebooks, *tests])


def run(name: str, row: Row, named: list[str], *, quick: bool) -> bool:
    """Run a row; a line says how it went and how long it took.  Whether it passed."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        folder = ROOT if row.folder is None else _copied(home / row.folder)
        command = [sys.executable, "-m", "pytest", "--nbval", "-n", "2", "--dist", "loadscope"]
        # A line for every test, as it ends: also a run that is cut short has named its failures.
        command += ["--verbose", *(named or paths(folder, quick=quick))]
        environment = {k: v for k, v in os.environ.items() if k not in VARIED} | row.sets
        environment["PYTHONPATH"] = str(folder)
        if row.user is not None:
            user = pwd.getpwnam(row.user)
            for path in (home, *home.rglob("*")):
                shutil.chown(path, user.pw_uid, user.pw_gid)
            environment |= {"HOME": str(home), "TMPDIR": str(home)}
            ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            again = ["setpriv", *ids, sys.executable, "-c", AGAIN]
            if subprocess.run(again, stderr=subprocess.DEVNULL, check=False).returncode != 0:
                print(f"{name:8} FAILED: {row.user} may not run {Path(sys.executable).resolve()}")
                return False
            command = ["setpriv", *ids, *command]
        if row.offline:
            command = ["unshare", "--net", sys.executable, "-c", LOOPBACK, *command]
        LOGS.mkdir(parents=True, exist_ok=True)
        log, started = LOGS / f"{name}.log", time.monotonic()
        with log.open("w") as file:
            done = subprocess.run(
                command, cwd=folder, env=environment, stdout=file, stderr=file, check=False
            )
        words = log.read_text().strip().splitlines()
    passed = done.returncode == 0
    line = words[-1] if words else "nothing was run"
    print(
        f"{name:8} {'passed' if passed else 'FAILED'} {time.monotonic() - started:6.0f} s  {line}",
        flush=True,
    )
    if not passed:
        ended = (re.match(r"\[gw\d+\] \[ *\d+%\] (?:FAILED|ERROR) (.+?) *$", x) for x in words)
        for failed in dict.fromkeys(match[1] for match in ended if match):
            print(f"{'':8} {failed}", flush=True)
        print(f"{'':8} see {log.relative_to(ROOT)}", flush=True)
    return passed


def _copied(folder: Path) -> Path:
    """A copy of every file that git knows of, as it is now."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def main() -> int:
    """Run the rows that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="three notebooks, no slow tests")
    parser.add_argument("--paths", nargs="+", default=[], help="what pytest runs instead of all")
    options = parser.parse_args()
    unknown = set(options.rows) - ROWS.keys()
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    names = options.rows or list(ROWS)
    if os.geteuid() != 0:
        left = [name for name in names if ROWS[name].user or ROWS[name].offline]
        names = [name for name in names if name not in left]
        print(f"not run, since only root can begin them: {', '.join(left) or 'none'}", flush=True)
    passed = [run(name, ROWS[name], options.paths, quick=options.quick) for name in names]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
