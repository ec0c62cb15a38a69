"""What `make options` has stored: complete, and of the settings that the code has now."""

import json
from dataclasses import asdict, fields, replace
from typing import Any

import options
import pytest

from ppo_lib import PPO, PPOConfig


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(options.DATA.read_text(encoding="utf-8"))


def test_every_case_has_every_seed(stored: dict[str, Any]) -> None:
    assert stored["cases"].keys() == options.CASES.keys()
    assert options.SEEDS["CartPole-v1"] >= 50
    for case, entry in stored["cases"].items():
        assert entry["changes"] == json.loads(json.dumps(options.CASES[case]))
        assert entry["seeds"] == list(range(options.SEEDS[case.split()[0]]))
        for column in ("returns", *options.SEEN):
            assert len(entry[column]) == len(entry["seeds"])


def test_bases_are_what_the_library_has(stored: dict[str, Any]) -> None:
    bases = {env_id: asdict(base) for env_id, base in options.BASES.items()}
    assert stored["bases"] == json.loads(json.dumps(bases))


@pytest.mark.parametrize("env_id", options.BASES)
def test_every_field_that_bears_on_learning_is_changed(env_id: str) -> None:
    base = options.BASES[env_id]
    changed = {name for changes in options.options(base).values() for name in changes}
    where = {"total_steps", "vectorization", "seed", "device", "num_threads"}
    sizes = {"num_envs", "num_steps", "minibatch_size", "learning_rate", "gamma", "kl_coef"}
    assert changed == {field.name for field in fields(PPOConfig)} - where - sizes
    for name, changes in options.options(base).items():
        other = replace(base, **changes)
        assert (other == base) == (name == "base")
        for field in changes:  # the penalty's target says nothing without the penalty
            assert getattr(other, field) != getattr(base, field)
        shown = ", ".join(f"{key}={value!r}".removesuffix(".0") for key, value in changes.items())
        assert name in (shown or "base", ", ".join(changes))


def test_the_batch_is_as_large_in_any_number_of_environments() -> None:
    for case, changes in options.CASES.items():
        if "num_envs" in changes:
            base = options.BASES[case.split()[0]]
            assert changes["num_envs"] * changes["num_steps"] == base.batch_size


@pytest.mark.parametrize(
    ("env_id", "low", "high"), [("CartPole-v1", 10, 40), ("Pendulum-v1", -2000, -900)]
)
def test_a_policy_earns_what_its_episodes_pay(env_id: str, low: float, high: float) -> None:
    with PPO(env_id, options.BASES[env_id]) as trainer:
        earned = options.earns(trainer.policy, env_id, seed=3)
        again = options.earns(trainer.policy, env_id, seed=3)
        assert earned == again != options.earns(trainer.policy, env_id, seed=4)
    assert low < earned < high  # the policy is nearly uniform: it falls, or hangs
