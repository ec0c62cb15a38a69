"""What `make options` has stored: complete, and of the settings that the code has now."""

import json
from dataclasses import asdict, fields, replace

import options
import pytest

from ppo_lib import PPO, PPOConfig

#: Of which the chapters speak.
SEEDS = {"cartpole": 50, "acrobot": 20, "pendulum": 10, "sizes": 50}
AGAIN = SEEDS | {"sizes": 20}  #: of the second runs


@pytest.mark.parametrize("name", options.GROUPS)
def test_every_case_has_every_seed(name: str) -> None:
    group = options.GROUPS[name]
    stored = json.loads(options.data(name).read_text(encoding="utf-8"))
    assert stored["base"] == json.loads(json.dumps(asdict(options.BASES[group.env_id])))
    assert list(stored["cases"]) == list(group.cases)
    seeds = list(range(len(stored["cases"]["base"]["seeds"])))
    assert len(seeds) >= SEEDS[name]
    for case, entry in stored["cases"].items():
        assert entry["changes"] == json.loads(json.dumps(group.cases[case]))
        assert entry["seeds"] == seeds
        for column in ("returns", *options.SEEN):
            assert len(entry[column]) == len(seeds)


@pytest.mark.parametrize("name", options.GROUPS)
def test_the_second_runs_are_those_of_other_seeds_and_other_kernels(name: str) -> None:
    first, again = (
        json.loads(options.data(group).read_text(encoding="utf-8"))
        for group in (name, f"{name}-again")
    )
    assert again["vector_instructions"] == "DEFAULT" != first["vector_instructions"]
    for setting in ("env_id", "episodes", "base"):
        assert again[setting] == first[setting]
    assert list(again["cases"]) == list(first["cases"])
    for case, entry in again["cases"].items():
        assert entry["changes"] == first["cases"][case]["changes"]
        assert entry["seeds"] == list(range(200, 200 + AGAIN[name]))
        assert len(entry["returns"]) == len(entry["seeds"])


@pytest.mark.parametrize("env_id", options.BASES)
def test_every_field_that_bears_on_learning_is_changed(env_id: str) -> None:
    base = options.BASES[env_id]
    changed = {name for changes in options.options(base).values() for name in changes}
    where = {"total_steps", "vectorization", "seed", "device", "num_threads"}
    sizes = {"num_envs", "num_steps", "minibatch_size", "learning_rate", "gamma", "kl_coef"}
    assert changed == {field.name for field in fields(PPOConfig)} - where - sizes
    for name, changes in options.options(base).items():
        other = replace(base, **changes)
        assert all(getattr(other, field) != getattr(base, field) for field in changes)
        shown = ", ".join(f"{key}={value!r}".removesuffix(".0") for key, value in changes.items())
        assert name in (shown or "base", ", ".join(changes))


def test_the_batch_is_as_large_in_any_number_of_environments() -> None:
    for changes in options.SIZES.values():
        size = replace(options.BASES["CartPole-v1"], **changes).batch_size
        assert size == 2048


@pytest.mark.parametrize(
    ("env_id", "low", "high"), [("CartPole-v1", 10, 40), ("Pendulum-v1", -2000, -900)]
)
def test_a_policy_earns_what_its_episodes_pay(env_id: str, low: float, high: float) -> None:
    with PPO(env_id, options.BASES[env_id]) as trainer:
        earned = options.earns(trainer.policy, env_id, seed=3)
        again = options.earns(trainer.policy, env_id, seed=3)
        assert earned == again != options.earns(trainer.policy, env_id, seed=4)
    assert low < earned < high  # the policy is nearly uniform: it falls, or hangs
