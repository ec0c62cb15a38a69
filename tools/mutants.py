"""Mutants: every place where the library computes is changed, and the tests must notice.

Usage: ``python tools/mutants.py [ROOM …] [--share S] [--tests FILE …]``; without a room,
every one.

A mutant is the library with one change: an operator, a bound, a number, a switch, a minus sign, a
keyword, a statement.  It is dead when a test of ``tests/`` fails, or does not end.  One that lives
must be explained in ``tools/mutants.toml``; any other ends this program with status 1.  Messages
of errors, docstrings, type hints and the looks of drawings are not changed.

Everything heavy is imported once.  A process that has collected the tests runs them all, notes
which function each of them calls, and then forks for every mutant: the functions of the changed
module get their new code, and those tests run that call the changed one: first those that have
noticed most of its room's mutants in the least time, then the quickest.
What that can't show (a number that is read at import), and whatever lives, is tried once more in
a process that imports the library anew; so do processes that a test itself starts.
"""

import argparse
import ast
import contextlib
import copy
import functools
import gc
import importlib
import inspect
import json
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "ppo_lib"
TABLE = Path(__file__).with_suffix(".toml")
CAP = 15.0  #: seconds of tests, at most, that a mutant has to pass
HEAVY = (
    *("torch.optim", "torch.distributed", "torch._dynamo", "gymnasium", "numpy", "pytest", "tqdm"),
    *("hypothesis.strategies", "matplotlib.pyplot", "lark", "tyro", "nbformat", "nbclient", "yaml"),
    *("gymnasium.envs.classic_control", "tensorboard", "torch.utils.tensorboard", "setuptools"),
)
NEW, HITS = "PPO_LIB_MUTANT", "PPO_LIB_MUTANT_HITS"  #: what other processes are told by

SWAPS: dict[type, list[type]] = {
    a: bs
    for a, *bs in (
        *((ast.Add, ast.Sub), (ast.Sub, ast.Add), (ast.Mult, ast.Div), (ast.Div, ast.Mult)),
        *((ast.FloorDiv, ast.Div), (ast.Mod, ast.Mult), (ast.Pow, ast.Mult)),
        *((ast.BitOr, ast.BitAnd), (ast.BitAnd, ast.BitOr), (ast.And, ast.Or), (ast.Or, ast.And)),
        *((ast.Lt, ast.LtE, ast.GtE), (ast.LtE, ast.Lt, ast.Gt)),
        *((ast.Gt, ast.GtE, ast.LtE), (ast.GtE, ast.Gt, ast.Lt)),
        *((ast.Eq, ast.NotEq), (ast.NotEq, ast.Eq), (ast.In, ast.NotIn), (ast.NotIn, ast.In)),
        *((ast.Is, ast.IsNot), (ast.IsNot, ast.Is)),
    )
}
NAMES = {"min": "max", "max": "min", "argmax": "argmin", "argmin": "argmax", "any": "all"}
NAMES |= {"all": "any"}
DROPPED = ("abs", "detach", "copy", "clone")  #: a call that is replaced by what it is called on
#: Keywords that only guard, or say where a warning is seen.
KEPT = ("strict", "stacklevel", "encoding", "category", "name", "doc")
#: Keywords, and keys of dictionaries, that only say how a drawing looks.
LOOKS = (
    *("zorder", "fontsize", "ha", "va", "alpha", "linestyle", "boxstyle", "edgecolor"),
    *("shrinkA", "shrinkB", "pad", "figure.dpi", "savefig.dpi", "grid.alpha"),
    *("legend.framealpha", "lines.linewidth", "linewidth", "lw", "bbox", "bbox_inches"),
    *("pad_inches",),
)
KEPT += LOOKS
UNTOUCHED = ("annotation", "returns", "decorator_list", "bases")


class Mutant(NamedTuple):
    """One change."""

    number: int  #: in its room
    line: str  #: of the source, stripped
    change: str
    function: int  #: line at which the innermost function with a name begins; 0 outside of any
    apply: Callable[[], None]  #: changes the tree
    tree: ast.Module  #: of the room


def mutants(source: str, tree: ast.Module) -> Iterator[Mutant]:
    """Every change of a room, in the order of its source."""
    lines, count = source.splitlines(), 0
    for node, put, function, parent in _places(tree, 0):
        for change, new in _variants(node, parent):
            new = ast.fix_missing_locations(ast.copy_location(new, node))
            line = lines[node.lineno - 1].strip()
            yield Mutant(count, line, change, function, functools.partial(put, new), tree)
            count += 1


def _places(node: ast.AST, function: int) -> Iterator[tuple[Any, Any, int, Any]]:
    """What may be changed below a node: itself, how to put another there, function, parent."""
    for name, value in ast.iter_fields(node):
        if name in UNTOUCHED or isinstance(node, ast.JoinedStr):
            continue
        inner = node.lineno if isinstance(node, ast.FunctionDef) and name == "body" else function
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_words(node, name, i, child):
                continue
            if hasattr(child, "lineno") and not isinstance(child, ast.keyword):
                yield child, _putter(node, name, value, i), inner, node
            yield from _places(child, inner)


def _putter(node: ast.AST, name: str, value: Any, i: int) -> Callable[[ast.AST], None]:
    if isinstance(value, list):
        return functools.partial(value.__setitem__, i)
    return functools.partial(setattr, node, name)


def _called(node: Any) -> str:
    """The name of what is called, without what it belongs to."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "id", getattr(function, "attr", ""))


def _is_words(node: ast.AST, name: str, i: int, child: Any) -> bool:
    """Whether a child is a docstring, a message, a type, or seen by no one who runs the library."""
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True
    if isinstance(child, ast.If) and ast.unparse(child.test) in (
        "TYPE_CHECKING",
        "__name__ == '__main__'",
    ):
        return True
    if isinstance(node, ast.Dict) and name == "values":
        return getattr(node.keys[i], "value", None) in LOOKS
    called = _called(node)
    message = called == "require" and (name, i) == ("args", 1)
    message |= isinstance(node, ast.Raise) or (called == "warn" and name in ("args", "keywords"))
    kind = called in ("isinstance", "cast", "TypeVar") and name == "args"
    kind &= i == (1 if called == "isinstance" else 0)
    return message or kind or (isinstance(child, ast.keyword) and child.arg in KEPT)


def _variants(node: Any, parent: Any) -> Iterator[tuple[str, ast.AST]]:
    """The changes of one node, in words and as another node."""

    def swapped(name: str, old: Any, **fields: Any) -> tuple[str, ast.AST]:
        new = copy.copy(node)
        for field, value in fields.items():
            setattr(new, field, value)
        return name or f"{ast.unparse(old)} → {ast.unparse(new)}", new

    if isinstance(node, ast.BinOp | ast.AugAssign):
        sides = [getattr(node, side, None) for side in ("left", "right", "value")]
        words = any(
            isinstance(x, ast.List | ast.JoinedStr | ast.Tuple)
            or (isinstance(x, ast.Constant) and isinstance(x.value, str))
            for x in sides
        )
        for op in () if words else SWAPS.get(type(node.op), []):
            yield swapped("", node, op=op())
    elif isinstance(node, ast.BoolOp):
        yield swapped("", node, op=SWAPS[type(node.op)][0]())
    elif isinstance(node, ast.Compare):
        for i, old in enumerate(node.ops):
            for op in SWAPS[type(old)]:
                yield swapped("", node, ops=[*node.ops[:i], op(), *node.ops[i + 1 :]])
    elif isinstance(node, ast.UnaryOp):
        yield f"{ast.unparse(node)} → {ast.unparse(node.operand)}", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        x = node.value
        other = not x if isinstance(x, bool) else x + 1 if isinstance(x, int) else 2 * x or 1.0
        yield f"{x} → {other} in {ast.unparse(parent)[:60]}", ast.Constant(other)
    elif isinstance(node, ast.Call):
        called = _called(node)
        if called in NAMES:
            function = copy.copy(node.func)
            setattr(function, "id" if isinstance(function, ast.Name) else "attr", NAMES[called])
            yield swapped("", node, func=function)
        if called in DROPPED and isinstance(node.func, ast.Attribute) and not node.args:
            yield f"drop .{called}() of {ast.unparse(node.func.value)}", node.func.value
        if called == "abs" and isinstance(node.func, ast.Name):
            yield f"drop abs of {ast.unparse(node.args[0])}", node.args[0]
        for word in node.keywords:
            if word.arg not in (None, *KEPT) and called not in ("warn", "same_shape"):
                others = [other for other in node.keywords if other is not word]
                name = f"drop {ast.unparse(word)[:60]} of {called}"
                yield swapped(name, node, keywords=others)
    elif isinstance(node, ast.Raise) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield f"drop {ast.unparse(node)[:60]}", ast.Pass()
    plain = not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant)
    tests = isinstance(parent, ast.If | ast.IfExp | ast.While) and node is parent.test
    tests |= isinstance(parent, ast.comprehension) and node in parent.ifs
    if plain and tests:
        yield f"not {ast.unparse(node)}", ast.UnaryOp(ast.Not(), node)


# ------------------------------------------------------------------ the library, changed


class Changed(SourceFileLoader):
    """Compiles a room from its tree: with a mutant in it, and noting which function is called."""

    mutant: tuple[str, int] | None = None
    noting = False
    codes: dict[str, CodeType] = {}  # noqa: RUF012

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The library's rooms, and nothing else."""
        spec = PathFinder.find_spec(name, path, target) if name.startswith("ppo_lib") else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = cls(spec.loader.name, spec.loader.path)
        return spec

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        """No stored bytecode."""
        room = room_of(Path(self.path))
        number = self.mutant[1] if self.mutant and self.mutant[0] == room else None
        code = self.codes[room] = compiled(Path(self.path), number, noting=self.noting)
        return code


def room_of(path: Path) -> str:
    """``exact.mdp``, say."""
    return ".".join(path.resolve().relative_to(LIBRARY).with_suffix("").parts)


def compiled(path: Path, number: int | None, *, noting: bool = False) -> CodeType:
    """The code of a room, with a mutant, or with a note at the start of every function."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    if number is not None:
        next(m for m in mutants(source, tree) if m.number == number).apply()
    for node in list(ast.walk(tree)) if noting else ():
        if isinstance(node, ast.FunctionDef):
            call = ast.parse(f"__import__('mutants').note({room_of(path)!r}, {node.lineno})").body[
                0
            ]
            for part in ast.walk(call):
                ast.copy_location(part, node)
            node.body.insert(1 if ast.get_docstring(node) is not None else 0, call)
    return compile(tree, str(path), "exec")


def note(room: str, line: int) -> None:
    """Write down that the running test has called a function, once."""
    if not Changed.noting:
        return
    hit = f"{os.environ.get('PYTEST_CURRENT_TEST', '')}\t{room}\t{line}\n"
    if hit not in _noted:
        with contextlib.suppress(OSError):  # while a test lets no file grow; the next call is noted
            with open(os.environ[HITS], "a", encoding="utf-8") as file:  # noqa: PTH123
                file.write(hit)
            _noted.add(hit)


_noted: set[str] = set()


def change_here() -> None:
    """What a process does that a test has started, before anything else: see `main`."""
    room, _, number = os.environ.get(NEW, "").partition(" ")
    Changed.mutant = (room, int(number)) if room else None
    Changed.noting = HITS in os.environ
    sys.meta_path.insert(0, Changed)


def patch(room: str, mutant: Mutant, functions: list[FunctionType]) -> bool:
    """Give the functions of a room their new code; False if that is not possible."""
    mutant.apply()
    new = compile(mutant.tree, str(path_of(room)), "exec")
    before, after = list(_codes(Changed.codes[room])), list(_codes(new))
    if [code.co_name for code in before] != [code.co_name for code in after]:
        return False
    if _at_import(before[0]) != _at_import(after[0]):
        return False
    pairs = {id(old): code for old, code in zip(before, after, strict=True)}
    for function in functions:
        code = pairs[id(function.__code__)]
        if code.co_freevars != function.__code__.co_freevars:
            return False
        function.__code__ = code
    return True


def _at_import(code: CodeType) -> tuple[Any, ...]:
    """What a module and the classes in it do at import, their functions and lambdas aside."""
    inner = [x for x in code.co_consts if isinstance(x, CodeType)]
    constants = [repr(x) for x in code.co_consts if not isinstance(x, CodeType)]
    classes = [_at_import(x) for x in inner if not x.co_flags & inspect.CO_OPTIMIZED]
    return code.co_code, code.co_names, constants, classes


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def path_of(room: str) -> Path:
    """The file of a room."""
    return LIBRARY.joinpath(*room.split(".")).with_suffix(".py")


# ------------------------------------------------------------------ the tests, run


class Session:
    """A plugin of pytest that hands the collected tests to a function instead of running them."""

    def __init__(self, work: Callable[["Session", list[Any]], None], *, stop: bool) -> None:
        self.work, self.stop = work, stop
        self.noticed: Path | None = None  #: where the test that fails first is written down
        self.seconds: dict[str, float] = defaultdict(float)
        self.shared: dict[str, float] = defaultdict(float)
        self.began = 0.0  #: when a test did, in seconds of processor time
        self.failed: list[str] = []

    def pytest_runtestloop(self, session: Any) -> bool:
        """In place of pytest's own."""
        if session.testsfailed:  # a file could not be imported
            os._exit(1)
        self.work(self, session.items)
        os._exit(0)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a test that fails, and end a mutant's process at once; and what tests share."""
        took = sum(os.times()[:4]) - self.began
        if report.when == "setup" and took > 1:  # what a later test of the file need not set up
            file = file_of(report.nodeid)
            self.shared[file] = max(self.shared[file], took)
            self.began += took
        if report.failed:
            self.failed.append(report.nodeid)
            if self.noticed:
                self.noticed.write_text(report.nodeid, encoding="utf-8")
            if self.stop:
                os._exit(1)

    def run(self, items: list[Any]) -> None:
        """Run tests in this order."""
        for item, following in zip_longest(items, items[1:]):
            self.began = sum(os.times()[:4])  # processes that it starts count, too
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self.seconds[item.nodeid] = sum(os.times()[:4]) - self.began


def pytest_session(folder: Path, files: list[str], session: Session) -> None:
    """Collect the tests of some files."""
    import pytest

    more = ["-q", "--capture=sys", "-p", "no:cacheprovider", "-p", "no:nbval", "-p", "no:xdist"]
    more += ["-o", "addopts=--import-mode=importlib", "-o", "tmp_path_retention_policy=none"]
    more += ["--assert=plain", "--tb=native"]  # no one reads the words of a failure
    status = pytest.main([*files, *more, f"--basetemp={folder / 'tmp'}"], plugins=[session])
    os._exit(10 + int(status))  # it ended before there was anything to run


def forked(work: Callable[[], object], *, seconds: float, quiet: bool = True) -> int | None:
    """The status of a process that does this work; None if it takes longer."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if quiet:
                nothing = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(nothing, stream)
            # Of processor time, which does not depend on what else the machine does.
            limit = int(seconds) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    # Who waits for nothing ends by the clock, which counts less the more the machine has to do.
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    until = time.monotonic() + busy * (4 * seconds + 60)
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # whatever the tests have left
    if ended == (0, 0):
        os.waitpid(pid, 0)
        return None
    status = os.waitstatus_to_exitcode(ended[1])
    return None if status in (-signal.SIGXCPU, -signal.SIGKILL) else status


@functools.cache
def text_of(file: str) -> str:
    """What stands in a file of tests."""
    return (ROOT / file).read_text(encoding="utf-8")


def file_of(test: str) -> str:
    """The file of a test."""
    return test.partition("::")[0]


class Baseline(NamedTuple):
    """What the tests do with the library as it is."""

    seconds: dict[str, float]  #: of each test
    shared: dict[str, float]  #: of what the tests of a file share, for the first that asks for it
    calls: dict[tuple[str, int], set[str]]  #: which tests call a function

    def tests(self, room: str, function: int, cap: float = CAP) -> list[str]:
        """Those that could notice, file by file, the quickest first, up to `CAP` seconds."""
        touched = set(self.calls.get((room, function), ()))
        if not touched:  # it is called, or read, at import: by tests of files that call or name it
            calls = (tests for (r, _), tests in self.calls.items() if r == room)
            files = {file_of(test) for tests in calls for test in tests}
            name = room.rpartition(".")[2]
            files |= {file for file in set(map(file_of, self.seconds)) if name in text_of(file)}
            touched = {test for test in self.seconds if file_of(test) in files}
        own = f"test_{room.rpartition('.')[2]}.py"
        cost: Counter[str] = Counter()
        for test in touched:
            cost[file_of(test)] += self.seconds[test]

        def order(test: str) -> tuple[bool, float, str, float]:
            file = file_of(test)
            return not file.endswith(own), cost[file], file, self.seconds[test]

        chosen: list[str] = []
        total, files = 0.0, set()
        for test in sorted(touched, key=order):
            file = file_of(test)
            seconds = self.seconds[test] if file in files else self.alone(test)
            if total + seconds <= cap or not chosen:
                chosen.append(test)
                total += seconds
                files.add(file)
        return chosen

    def alone(self, test: str) -> float:
        """The seconds of a test that is the first of its file."""
        return self.seconds[test] + self.shared.get(file_of(test), 0.0)

    def limit(self, tests: list[str]) -> float:
        """The seconds after which they do not end."""
        shared = sum(self.shared.get(file, 0.0) for file in set(map(file_of, tests)))
        return 5 * (sum(self.seconds[test] for test in tests) + shared) + 10


def first_run(session: Session, items: list[Any], folder: Path) -> Baseline:
    """Run everything once, as it is."""
    session.run(items)
    for test in session.failed:
        print(f"fails without any mutant, and is left out: {test}", flush=True, file=sys.__stdout__)
    calls: dict[tuple[str, int], set[str]] = defaultdict(set)
    files: dict[str, set[str]] = defaultdict(set)
    for item in items:
        files[file_of(item.nodeid)].add(item.nodeid)
    for line in (folder / "hits").read_text(encoding="utf-8").splitlines():
        test, room, function = line.split("\t")
        name, _, phase = test.rpartition(" ")
        # What a fixture has called, all tests of the file may look at.
        tests = files[file_of(name)] if phase == "(setup)" else {name}
        calls[room, int(function)] |= (tests & session.seconds.keys()) - set(session.failed)
    seconds = {test: x for test, x in session.seconds.items() if test not in session.failed}
    return Baseline(seconds, session.shared, calls)


def in_session(
    tried: dict[tuple[str, int], Mutant],
    folder: Path,
    kept: Path,
    log: Path,
    cap: float,
    session: Session,
    items: list[Any],
) -> None:
    """The baseline, and every mutant that needs no new import; both into a file."""
    if not kept.exists():
        # In a process of its own: threads that it starts would not outlive a fork.
        work_once = lambda: kept.write_bytes(pickle.dumps(first_run(session, items, folder)))  # noqa: E731
        if forked(work_once, seconds=1e6, quiet=False) != 0:
            raise SystemExit("the tests could not be run once")
    Changed.noting = False
    del os.environ[HITS]
    baseline = pickle.loads(kept.read_bytes())
    by_name = {item.nodeid: item for item in items}
    functions: dict[str, list[FunctionType]] = defaultdict(list)
    codes = {id(c): room for room, code in Changed.codes.items() for c in _codes(code)}
    for thing in gc.get_objects():
        if type(thing) is FunctionType and id(thing.__code__) in codes:
            functions[codes[id(thing.__code__)]].append(thing)
    caches = [thing for thing in gc.get_objects() if type(thing) is type(functools.cache(len))]
    session.stop, session.noticed = True, folder / "noticed"
    noticed: dict[str, Counter[str]] = defaultdict(Counter)
    gc.freeze()

    def work(room: str, mutant: Mutant, tests: list[str]) -> None:
        if mutant.number >= 0:  # or processes that a test starts would have the change
            os.environ[NEW] = f"{room} {mutant.number}"
        try:
            possible = patch(room, mutant, functions[room])
        except Exception:
            possible = False
        if not possible:
            os._exit(2)
        for cache in caches:
            cache.cache_clear()
        session.run([by_name[test] for test in tests])

    seconds = sum(baseline.seconds.values())
    print(
        f"{len(items)} tests pass in {seconds:.0f} s; {len(tried)} mutants",
        flush=True,
        file=sys.__stdout__,
    )
    chosen = {key: baseline.tests(key[0], mutant.function, cap) for key, mutant in tried.items()}
    right: set[str] = set()  # rooms whose tests pass when nothing was changed in this way
    for (room, number), mutant in tried.items():
        found = noticed[room]
        tests = sorted(
            chosen[room, number], key=lambda test: -found[test] / (0.1 + baseline.alone(test))
        )
        if room not in right:
            same = mutant._replace(apply=lambda: None, number=-1)
            limit = baseline.limit(tests)
            status = forked(lambda: work(room, same, tests), seconds=limit)  # noqa: B023
            if status != 0:
                how = "do not end" if status is None else "fail"
                raise SystemExit(f"tests of {room} {how} without any change")
            right.add(room)
        limit = baseline.limit(tests)
        session.noticed.unlink(missing_ok=True)
        status = forked(lambda: work(room, mutant, tests), seconds=limit)  # noqa: B023
        tell(log, room, number, mutant, status)
        if status == 1 and session.noticed.exists():
            found[session.noticed.read_text(encoding="utf-8")] += 1


def tell(log: Path, room: str, number: int, mutant: Mutant, status: int | None) -> None:
    """Add a line to the log."""
    row = {"room": room, "number": number, "status": status}
    row |= {"line": mutant.line, "change": mutant.change}
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    if status == 0:
        print(
            f"alive in {room}: {mutant.line}   [{mutant.change}]", flush=True, file=sys.__stdout__
        )


def outcomes(log: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
    """The last line of each mutant in a log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log and log.exists() else []
    return {(row["room"], row["number"]): row for row in map(json.loads, lines)}


def anew(room: str, number: int, tests: list[str], folder: Path) -> None:
    """The tests of one mutant, in a process that imports the library now."""
    os.environ[NEW] = f"{room} {number}"
    change_here()

    def work(session: Session, items: list[Any]) -> None:
        by_name = {item.nodeid: item for item in items}
        session.run([by_name[test] for test in tests if test in by_name])

    files = list(dict.fromkeys(map(file_of, tests)))
    pytest_session(folder, files, Session(work, stop=True))


def main() -> int:
    """Make the mutants, run the tests, print what lives and the table of the rooms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", help="returns, exact.mdp, …; all without any")
    parser.add_argument("--share", type=float, default=1.0, help="a random share of the mutants")
    parser.add_argument("--all", action="store_true", help="try those that are explained, too")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files, instead of all")
    parser.add_argument("--cap", type=float, default=CAP, help="seconds of tests for a mutant")
    parser.add_argument("--baseline", type=Path, help="keeps what the tests do with no mutant")
    parser.add_argument("--quick", action="store_true", help="nothing a second time")
    parser.add_argument("--log", type=Path, help="keeps outcomes; what it calls dead stays dead")
    options = parser.parse_args()
    began = time.monotonic()
    rooms = options.rooms or [room_of(path) for path in sorted(LIBRARY.rglob("*.py"))]
    every = {}
    for room in rooms:
        source = path_of(room).read_text(encoding="utf-8")
        every |= {(room, m.number): m for m in mutants(source, ast.parse(source))}
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))["explained"] if TABLE.exists() else []
    explained = {(row["room"], row["line"], row["change"]) for row in table}
    known = {k for k, m in every.items() if (k[0], m.line, m.change) in explained}
    names = {(k[0], m.line, m.change) for k, m in every.items()}
    stale = [name for name in explained - names if name[0] in rooms]
    chosen = [k for k in every if options.all or k not in known]
    # In random order, so that a run that is cut short has tried a random sample.
    chosen = random.Random(0).sample(chosen, round(options.share * len(chosen)))
    past = {key: row for key, row in outcomes(options.log).items() if row["status"] not in (0, 2)}
    tried = {key: every[key] for key in chosen if key not in past}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text("import mutants\n\nmutants.change_here()\n")
        (folder / "hits").touch()
        log, kept = options.log or folder / "outcomes", options.baseline or folder / "baseline"
        os.environ["PYTHONPATH"] = os.pathsep.join([name, str(ROOT), str(ROOT / "tools")])
        os.environ |= {"OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy", "TQDM_DISABLE": "1"}
        sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
        sys.modules["mutants"] = sys.modules["__main__"]
        os.chdir(ROOT)
        for module in HEAVY:
            importlib.import_module(module)

        def whole() -> None:
            os.environ[HITS] = str(folder / "hits")
            change_here()
            work = functools.partial(in_session, tried, folder, kept, log, options.cap)
            pytest_session(folder, options.tests, Session(work, stop=False))

        if forked(whole, seconds=1e6, quiet=False) != 0:
            raise SystemExit("the tests could not be run")
        baseline = pickle.loads(kept.read_bytes())
        for (room, number), row in outcomes(log).items():
            again = row["status"] == 2 or (row["status"] == 0 and not options.quick)
            if (room, number) not in tried or not again:
                continue
            mutant = tried[room, number]
            tests = baseline.tests(room, mutant.function, options.cap)
            work = functools.partial(anew, room, number, tests, folder)
            status = forked(work, seconds=baseline.limit(tests) + 10)
            tell(log, room, number, mutant, status)
        found = outcomes(log)
    rows = [row for key, row in found.items() if key in tried] + list(past.values())
    return report(rows, Counter(room for room, _ in known), stale, time.monotonic() - began)


def report(rows: list[dict[str, Any]], known: Counter[str], stale: list[Any], took: float) -> int:
    """The table of the rooms; 1 if there is something to explain, or too much lives."""
    print(
        f"{'room':22}{'made':>6}{'dead':>6}{'(late)':>7}{'explained':>10}{'alive':>6}{'dead %':>8}"
    )
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        kind = {0: "alive", None: "late"}.get(row["status"], "dead")
        for room in (row["room"], "all"):
            counts[room][kind] += 1
    for room in [*sorted(counts.keys() - {"all"}), "all"]:
        c = counts[room]
        dead, explained = (
            c["dead"] + c["late"],
            sum(known.values()) if room == "all" else known[room],
        )
        tried = dead + c["alive"]
        print(
            f"{room:22}{tried + explained:6}{dead:6}{c['late']:7}{explained:10}{c['alive']:6}"
            f"{100 * dead / max(tried, 1):8.1f}"
        )
    for name in stale:
        print(f"explained, but no longer there: {name}")
    print(f"{took / 60:.0f} minutes")
    return int(counts["all"]["alive"] > 0 or bool(stale))


if __name__ == "__main__":
    sys.exit(main())
