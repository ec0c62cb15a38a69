"""What `make language` and `make language-model` have stored: complete, and of these settings."""

import json
from typing import Any

import language
import language_model
import numpy as np
import pytest
import torch

from ppo_lib.language import world


def stored(tool: Any) -> dict[str, Any]:
    kept = json.loads(tool.DATA.read_text(encoding="utf-8"))
    assert {"made_by", "made_with", "commit", "processor", "vector_instructions"} <= kept.keys()
    assert "changed" not in kept["commit"]
    return kept["cases"]


def test_every_case_of_the_listed_world_has_every_seed() -> None:
    cases = stored(language)
    assert list(cases) == list(language.CASES)
    for name, entry in cases.items():
        assert entry["settings"] == language.CASES[name]
        assert entry["seeds"] == list(range(20))
        columns = (entry[x] for x in ("kl", "kl_from_reference", "reward", "first_word_not"))
        assert [len(column) for column in columns] == [20] * 4


@pytest.mark.parametrize("case", ["β = 1", "γ = 0.9"])
def test_no_policy_earns_more_than_the_best_and_each_lacks_its_divergence(case: str) -> None:
    # J* = β log Σ π_ref exp(r / β), summed over all texts; a run has J* - β KL(π ‖ π*).
    entry = stored(language)[case]
    beta = entry["settings"]["kl_coef"]
    prior = world.text_log_probs(world.reference_policy())
    best = beta * torch.logsumexp(prior + world.gold_rewards() / beta, 0).item()
    earned = np.array(entry["reward"]) - beta * np.array(entry["kl_from_reference"])
    lack = beta * np.array(entry["kl"])
    np.testing.assert_allclose(earned, best - lack, atol=1e-3)


def test_every_price_of_the_model_has_every_seed() -> None:
    cases = stored(language_model)
    assert list(cases) == ["reference", *map(str, sorted(language_model.BETAS))]
    for name, entry in cases.items():
        assert entry["seeds"] == list(range(10))
        if name != "reference":
            curves = [curve for key in language_model.CURVES for curve in entry[key]]
            assert {len(curve) for curve in curves} == {language_model.UPDATES}
