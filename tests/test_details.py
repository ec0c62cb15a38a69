"""The 37 details: every row has its place and its runs, and every change does what it says."""

import importlib
import json
import tomllib
from dataclasses import asdict, replace
from typing import Any

import details
import options
import pytest
import torch

from ppo_lib import PPO
from ppo_lib.ppo import Batch, minibatches

BOOK = details.DATA.parents[1]
ROWS = tomllib.loads((BOOK / "details.toml").read_text(encoding="utf-8"))["detail"]


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(details.DATA.read_text(encoding="utf-8"))


def test_there_are_37_details_in_their_groups() -> None:
    groups = [row["group"] for row in ROWS]
    sizes = {group: groups.count(group) for group in dict.fromkeys(groups)}
    assert list(sizes.values()) == [13, 9, 9, 5, 1]
    assert len({row["says"] for row in ROWS}) == 37


def test_every_row_is_whole() -> None:
    for row in ROWS:
        assert row.keys() <= {"group", "name", "says", "where", "chapter", "measured", "why"}
        assert row["name"]
        assert "measured" in row or "why" in row, row["name"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["says"][:30])
def test_what_a_row_names_exists(row: dict[str, Any]) -> None:
    for name in row.get("where", []):
        room, *inside = name.split(".")
        found: Any = importlib.import_module(f"ppo_lib.{room}")
        for part in inside:
            found = getattr(found, part)
    if "chapter" in row:
        assert (BOOK / f"{row['chapter']}.ipynb").is_file()
    known = {name: group.cases for name, group in options.GROUPS.items()}
    known["details"] = details.CHANGES
    for _, *sides in row.get("measured", []):
        for place in sides:
            file, key = place.split(": ", 1)
            assert key in known[file]


def test_every_change_stands_in_a_row() -> None:
    used = {place for row in ROWS for m in row.get("measured", []) for place in m[1:]}
    assert {f"details: {name}" for name in details.CHANGES} <= used


def test_every_change_has_every_seed(stored: dict[str, Any]) -> None:
    bases = {env_id: asdict(details.BASES[env_id]) for env_id in details.SEEDS}
    assert stored["bases"] == json.loads(json.dumps(bases))
    assert list(stored["cases"]) == list(details.CHANGES)
    for name, entry in stored["cases"].items():
        assert entry["seeds"] == list(range(details.count_of(name)))
        if details.CHANGES[name].env_id == details.CARTPOLE:
            assert all(5 <= earned <= 500 for earned in entry["returns"])


def touched(name: str) -> PPO:
    change = details.CHANGES[name]
    trainer = PPO(change.env_id, replace(details.BASES[change.env_id], **change.fields))
    change.touch(trainer)
    return trainer


def test_weights_and_biases_are_drawn_as_by_torch() -> None:
    layer = details.linear_layers(touched("weights as torch draws them").policy)[1]
    assert layer.weight.abs().max() <= 1 / 8
    assert layer.weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)
    assert layer.bias.eq(0).all()
    layer = details.linear_layers(touched("biases as torch draws them").critic)[1]
    assert 0 < layer.bias.abs().max() <= 1 / 8


def test_gain_and_epsilon() -> None:
    with PPO(details.CARTPOLE, details.BASES[details.CARTPOLE]) as trainer:
        small = details.linear_layers(trainer.policy)[-1].weight
        large = details.linear_layers(touched("output gain 1").policy)[-1].weight
        torch.testing.assert_close(large, 100 * small)
        assert trainer.optimizer.param_groups[0]["eps"] == 1e-5
    assert touched("Adam's ε 1e-8").optimizer.param_groups[0]["eps"] == 1e-8


def test_shared_layers_are_counted_once() -> None:
    trainer = touched("shared layers")
    assert len(trainer.parameters) == 8  # two layers and two outputs, each of weight and bias
    assert trainer.policy.net[1] is trainer.critic.net[1]


def test_bounds_are_gone() -> None:
    trainer = touched("observations not clipped")
    far = torch.full((1, 4), 1e6)
    assert trainer.policy.net[0](far).max() > 1e3
    trainer = touched("Pendulum, rewards not clipped")
    rewards, no = torch.zeros(400, 8), torch.zeros(400, 8, dtype=torch.bool)
    rewards[0, 0] = 1.0  # over a deviation of its sum of about 1 / 25
    with PPO(details.PENDULUM, details.BASES[details.PENDULUM]) as right:
        assert right.reward_normalizer(rewards, no, ~no).max() == 10
    assert 20 < trainer.reward_normalizer(rewards, no, ~no).max() < 30


def test_pendulums_changes() -> None:
    trainer = touched("Pendulum, spread by state")
    assert trainer.policy(torch.randn(5, 3)).shape == (5, 2)
    assert trainer.policy(100 * torch.randn(5, 3))[:, 1].std() > 0
    params = torch.tensor([[5.0, 0.0]])
    stored_action = touched("Pendulum, clipped actions stored").policy.dist.sample(
        params, torch.Generator().manual_seed(0)
    )
    assert stored_action.item() == 2.0


def test_minibatches_in_order_hold_neighbours() -> None:
    batch = Batch(*(torch.arange(10) for _ in Batch._fields))
    cut = [mb.obs.tolist() for mb in details.in_order(batch, 4, torch.Generator())]
    assert cut == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    shuffled = [mb.obs.tolist() for mb in minibatches(batch, 4, torch.Generator())]
    assert shuffled != cut
