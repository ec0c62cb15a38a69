"""`gae` against the GAE of other libraries; `make peers` makes the numbers again."""

import json
from pathlib import Path

import pytest
import torch

from ppo_lib.returns import gae

REFERENCE = json.loads((Path(__file__).parent / "peers" / "gae_reference.json").read_text())
PEERS = ("torchrl", "stable-baselines3")


def test_the_reference_says_which_versions_gave_it():
    pinned = (Path(__file__).parent / "peers" / "requirements.txt").read_text().splitlines()
    for peer in (*PEERS, "torch", "numpy"):
        assert f"{peer}=={REFERENCE['versions'][peer].split('+')[0]}" in pinned


def test_the_reference_has_every_kind_of_ending():
    flags = [
        (terminated, truncated)
        for case in REFERENCE["cases"]
        for terminated, truncated in zip(
            torch.tensor(case["inputs"]["terminated"]).flatten().tolist(),
            torch.tensor(case["inputs"]["truncated"]).flatten().tolist(),
            strict=True,
        )
    ]
    assert set(flags) == {(False, False), (True, False), (False, True), (True, True)}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", REFERENCE["cases"], ids=range(len(REFERENCE["cases"])))
def test_gae_equals_the_other_library(case, peer):
    inputs = {
        name: torch.tensor(x) if isinstance(x[0][0], bool) else torch.tensor(x, dtype=torch.float64)
        for name, x in case["inputs"].items()
    }
    advantages, returns = gae(**inputs, gamma=case["gamma"], gae_lambda=case["gae_lambda"])
    expected = torch.tensor(case["advantages"][peer], dtype=torch.float64)
    torch.testing.assert_close(advantages, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(returns, expected + inputs["values"], rtol=1e-12, atol=1e-12)
