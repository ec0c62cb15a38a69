"""The rooms of the library: each one imports only from those before it."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "ppo_lib"
FLOORS = [
    {"validate", "ranks"},
    {"returns", "objectives", "mdp", "distributions", "optimizer", "mlp"},
    {"policies", "envs", "checks", "figures"},
    {"rollout"},
    {"evaluate", "film", "history", "progress", "normalizers"},
    {"ppo"},
    {"ladder", "checkpoint", "settings", "tensorboard"},
    {"__init__", "__main__"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}


def test_every_room_has_its_floor() -> None:
    assert FLOOR.keys() == {path.stem for path in LIBRARY.glob("*.py")}


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_imports_only_from_lower_floors(room: str) -> None:
    tree = ast.parse((LIBRARY / f"{room}.py").read_text(encoding="utf-8"))
    imported = {
        node.module.removeprefix("ppo_lib.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ppo_lib.")
    }
    assert all(FLOOR[other] < FLOOR[room] for other in imported), imported
