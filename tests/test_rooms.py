"""The rooms of the library: each one imports only from those before it."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "ppo_lib"
FLOORS = [
    {"validate"},
    {"returns", "objectives", "distributions", "normalizers", "exact.mdp", "book.checks"},
    {"policies", "config", "envs", "exact.env", "book.figures", "language.tokens"},
    {"rollout", "checkpoint", "language.world"},
    {"evaluate", "history", "shell.film"},
    {"ppo"},
    {"parallel", "book.ladder", "book.language", "shell.tensorboard"},
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


def rooms(node: ast.ImportFrom) -> set[str]:
    """The rooms that an import names, by itself or as what it takes from a sub-package."""
    module = (node.module or "").removeprefix("ppo_lib").removeprefix(".")
    inside = {".".join(filter(None, (module, alias.name))) for alias in node.names}
    return ({module} & ROOMS.keys()) or (inside & ROOMS.keys())
