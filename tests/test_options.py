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


def test_every_option_has_every_seed(stored: dict[str, Any]) -> None:
    assert list(stored["options"]) == list(options.OPTIONS)
    for name, entry in stored["options"].items():
        changes = json.loads(json.dumps(options.OPTIONS[name]))
        assert entry["changes"] == changes
        for column in ("returns", *options.SEEN):
            assert len(entry[column]) == options.SEEDS >= 50


def test_base_is_what_the_library_has(stored: dict[str, Any]) -> None:
    assert stored["base"] == json.loads(json.dumps(asdict(options.BASE)))


def test_every_field_that_bears_on_learning_is_changed() -> None:
    where = {"total_steps", "vectorization", "seed", "device", "num_threads"}
    sizes = {"num_envs", "num_steps", "minibatch_size", "learning_rate", "gamma", "kl_coef"}
    changed = {name for changes in options.OPTIONS.values() for name in changes}
    assert changed == {field.name for field in fields(PPOConfig)} - where - sizes
    for name, changes in options.OPTIONS.items():
        assert (replace(options.BASE, **changes) == options.BASE) == (name == "base")
        shown = ", ".join(f"{key}={value!r}".removesuffix(".0") for key, value in changes.items())
        assert name == (shown or "base")


def test_an_interrupted_command_goes_on_where_it_stopped() -> None:
    done = {"base": {"returns": [1.0, 2.0]}, "vf_coef=0.01": {"returns": [3.0]}}
    runs = [("vf_coef=0.01", 1), ("base", 2), ("vf_coef=0.01", 2)]
    assert options.missing(done, ["base", "vf_coef=0.01"], 3) == runs


def test_a_policy_earns_what_its_episodes_pay() -> None:
    with PPO(options.ENV_ID, options.BASE) as trainer:
        earned = options.earns(trainer.policy, seed=3)
        assert earned == options.earns(trainer.policy, seed=3) != options.earns(trainer.policy, 4)
    assert 10 < earned < 40  # the policy is nearly uniform, and falls after some twenty steps
