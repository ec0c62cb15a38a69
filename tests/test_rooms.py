"""The rooms of the library: each one imports only from those before it."""

import ast
import re
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "ppo_lib"
FLOORS = [
    {"validate", "replay"},
    {
        *("audit", "returns", "objectives", "distributions", "normalizers", "envs", "exact.mdp"),
        *("book.evidence", "language.reviews"),
    },
    {
        *("config", "policies", "book.checks", "book.figures", "book.formulas", "book.worlds"),
        *("language.tokens", "language.transformer"),
    },
    {
        *("rollout", "networks", "exact.env", "book.reading", "language.world"),
        "language.tuning",
    },
    {"evaluate", "history", "checkpoint"},
    {"ppo", "best", "shell.film"},
    {
        *("parallel", "book.fleet", "book.bugs", "book.language", "book.printed"),
        "shell.tensorboard",
    },
    {"book.climbs", "shell.keep"},
    {"shell.command"},
    {"__init__", "__main__"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = {
    ".".join(path.relative_to(LIBRARY).with_suffix("").parts): path
    for path in LIBRARY.rglob("*.py")
    if path.parent == LIBRARY or path.stem != "__init__"
}


def test_every_room_has_its_floor() -> None:
    assert FLOOR.keys() == ROOMS.keys()


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_imports_only_from_lower_floors(room: str) -> None:
    tree = ast.parse(ROOMS[room].read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ppo_lib")
        for name in rooms(node)
    }
    assert all(FLOOR[other] < FLOOR[room] for other in imported), imported


def test_the_core_is_read_in_one_sitting() -> None:
    core = ("returns", "objectives", "distributions", "policies", "rollout", "ppo")
    assert sum(len(ROOMS[room].read_text().splitlines()) for room in core) <= 1225


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_no_private_name_of_torch_is_used(room: str) -> None:
    tree = ast.parse(ROOMS[room].read_text(encoding="utf-8"))
    chains = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    private = [chain for chain in chains if re.match(r"(torch|nn|dist|gym|np)\.(\w+\.)*_", chain)]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{alias.name}" for node in imports for alias in node.names]
    private += [name for name in names if re.match(r"(torch|gymnasium|numpy)\b.*\._", name)]
    # Nor one of a module, an optimizer or a vector environment.
    hidden = {"_parameters", "_buffers", "_modules", "_apply", "_call_impl", "_env"}
    private += [chain for chain in chains if chain.rpartition(".")[2] in hidden]
    assert private == []


def rooms(node: ast.ImportFrom) -> set[str]:
    """The rooms that an import names, by itself or as what it takes from a sub-package."""
    module = (node.module or "").removeprefix("ppo_lib").removeprefix(".")
    inside = {".".join(filter(None, (module, alias.name))) for alias in node.names}
    return ({module} & ROOMS.keys()) or (inside & ROOMS.keys())
