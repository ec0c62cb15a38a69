"""The paper's table: a stack of runs is `PPO`, and what is stored is balanced."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import table1
import torch
from stack import StackedPPO

from ppo_lib import PPO
from ppo_lib.objectives import normalize_advantages
from ppo_lib.ppo import Batch

ENV_ID = "Pendulum-v1"  # needs no simulator
SMALL = {"total_steps": 512, "num_steps": 256, "num_epochs": 2}


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(table1.DATA.read_text(encoding="utf-8"))


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return [layer.weight for layer in network.modules() if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("objective", list(table1.OBJECTIVES)[:5:2])
def test_a_stack_of_one_learns_what_ppo_learns(objective: str) -> None:
    changes = table1.OBJECTIVES[objective].changes
    config = replace(table1.SETTINGS, seed=3, **SMALL, **changes)
    with PPO(ENV_ID, config) as alone:
        alone.learn(show_progress=False)
    stack = StackedPPO(ENV_ID, [config])
    stack.learn()
    for theirs, mine in zip(weights(alone.policy), stack.policy.net.weights, strict=True):
        torch.testing.assert_close(mine[0].T, theirs, rtol=0, atol=1e-5)
    for theirs, mine in zip(weights(alone.critic), stack.critic.weights, strict=True):
        torch.testing.assert_close(mine[0].T, theirs, rtol=0, atol=1e-5)
    assert stack.kl_coef.item() == alone.kl_coef
    assert [r for _, r in stack.episodes[0]] == pytest.approx(
        [r for _, r, _ in alone.history.episodes], rel=1e-4
    )


def test_each_run_of_a_stack_has_the_gradient_that_it_would_have_alone() -> None:
    configs = [replace(config, **SMALL) for config in table1.configs(seed=2)]
    stack = StackedPPO(ENV_ID, configs)
    with torch.no_grad():  # away from the start, where every objective has one gradient
        for p in stack.parameters:
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    rollout = stack.collector.collect(stack.policy, 64, stack.generator)
    noise = torch.randn(rollout.dist_params.shape, generator=torch.Generator().manual_seed(2))
    params = rollout.dist_params + 0.2 * noise
    old = stack.policy.dist.log_prob(params, rollout.actions)
    values = stack.values(rollout.obs).detach()
    columns = rollout.obs, rollout.actions, old, params, values, noise[..., 0], noise[..., 1]
    batch = Batch(*columns)
    stack.loss(batch).backward()
    for r, config in enumerate(configs):
        with PPO(ENV_ID, config) as alone:
            networks = (alone.policy, stack.policy.net), (alone.critic, stack.critic)
            with torch.no_grad():
                alone.policy.log_std.copy_(stack.policy.log_std[r])
                for network, stacked in networks:
                    linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
                    for layer, w, b in zip(linear, stacked.weights, stacked.biases, strict=True):
                        layer.weight.copy_(w[r].T)
                        layer.bias.copy_(b[r, 0])
                normalizer = alone.policy.net[0]
                of_run = slice(3 * r, 3 * r + 3)
                normalizer.center.copy_(stack.normalizer.center[of_run])
                normalizer.scale.copy_(stack.normalizer.scale[of_run])
            mine = Batch(*(column[:, r] for column in batch))
            alone.gradient(mine._replace(advantages=normalize_advantages(mine.advantages)))
            for network, stacked in networks:
                for weight, gradient in zip(weights(network), stacked.weights, strict=True):
                    expected = weight.grad
                    torch.testing.assert_close(gradient.grad[r].T, expected, rtol=1e-3, atol=1e-5)


def test_a_lost_run_takes_no_other_with_it() -> None:
    configs = [replace(config, **SMALL) for config in table1.configs(seed=2)[:3]]
    stack = StackedPPO(ENV_ID, configs)
    for p in stack.parameters:
        p.grad = torch.ones_like(p)
    stack.parameters[0].grad[1] = torch.nan
    stack.stop_the_lost()
    assert stack.ended == [None, 0, None]
    assert all(p.grad[1].eq(0).all() and p.grad[[0, 2]].eq(1).all() for p in stack.parameters)


def test_a_stack_goes_on_with_all_that_it_has_learned() -> None:
    stack = StackedPPO(ENV_ID, [replace(table1.SETTINGS, **SMALL)])
    stack.learn()
    again = StackedPPO(ENV_ID, [replace(table1.SETTINGS, **SMALL)])
    again.load_state_dict(stack.state_dict())
    assert torch.equal(again.policy.net.weights[1], stack.policy.net.weights[1])
    assert again.episodes == stack.episodes
    assert len(again.kls) == 2


def test_a_stack_refuses_runs_that_differ_in_more_than_their_objective() -> None:
    configs = [table1.SETTINGS, replace(table1.SETTINGS, gamma=0.9)]
    with pytest.raises(ValueError, match="expected them to differ in"):
        StackedPPO(ENV_ID, configs)


def test_a_score_is_of_the_last_hundred_episodes_by_each_mark() -> None:
    stack = StackedPPO(ENV_ID, [table1.SETTINGS])
    stack.episodes[0] = [(update, float(update)) for update in range(400)]
    stack.kls = [torch.zeros(1)] * 400
    row = table1.row(stack, 0, ENV_ID, "none", 10, 1.0)
    assert row["scores"][-1] == np.mean(range(144, 244))
    assert row["scores"][0] == np.mean(range(25))


def test_a_stack_stops_where_it_is_told() -> None:
    stack = StackedPPO(ENV_ID, [replace(table1.SETTINGS, **SMALL)])
    stack.learn(until=1)
    assert len(stack.kls) == 1


def test_a_run_up_to_a_mark_is_not_missing_there() -> None:
    runs = [
        {"env_id": "Swimmer-v5", "seed": 0, "objective": name, "scores": [1.0] * 5}
        for name in table1.OBJECTIVES
    ]
    assert list(table1.missing(runs, ["Swimmer-v5"], 1, marks=5)) == []
    assert list(table1.missing(runs, ["Swimmer-v5"], 2, marks=6)) == [
        ("Swimmer-v5", 0),
        ("Swimmer-v5", 1),
    ]
    assert list(table1.missing([], ["Reacher-v5", "Swimmer-v5"], 2)) == [
        ("Reacher-v5", 0),
        ("Swimmer-v5", 0),
        ("Reacher-v5", 1),
        ("Swimmer-v5", 1),
    ]
    assert [table1.end_of(mark) for mark in (1, 5, 20)] == [25, 122, 488]


def test_stored_runs_are_balanced_and_of_the_settings_of_the_code(stored: dict[str, Any]) -> None:
    assert stored["settings"] == json.loads(json.dumps(asdict(table1.SETTINGS)))
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in stored["runs"]:
        groups.setdefault((run["env_id"], run["seed"]), []).append(run)
    for (env_id, seed), runs in groups.items():
        assert [run["objective"] for run in runs] == list(table1.OBJECTIVES)
        assert len({len(run["scores"]) for run in runs}) == 1
        assert 1 <= len(runs[0]["scores"]) <= table1.MARKS
        assert env_id in table1.ENV_IDS
        assert env_id in stored["random"]
        assert seed < table1.SEEDS
    done = {key for key, runs in groups.items() if len(runs[0]["scores"]) == table1.MARKS}
    every = list(table1.missing([], table1.ENV_IDS, table1.SEEDS))
    left = list(table1.missing(stored["runs"], table1.ENV_IDS, table1.SEEDS))
    assert left == [key for key in every if key not in done]
    assert len(every) == 21


def test_the_chapter_prints_the_scores_of_the_paper() -> None:
    chapter = Path(table1.ROOT / "book" / "13-the-evidence.ipynb").read_text(encoding="utf-8")
    assert ", ".join(f"{o.paper:.2f}" for o in table1.OBJECTIVES.values()) in chapter
