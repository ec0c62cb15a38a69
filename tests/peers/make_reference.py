"""Store what other libraries give for GAE, as the truth of tests/test_gae_peers.py.

Usage: ``make peers``, or ``python tests/peers/make_reference.py`` in an environment of its own
with ``tests/peers/requirements.txt``.  The same versions write the same bytes again.

Each case holds [T, N] inputs in the form of ``ppo_lib.gae`` and the answers of

- TorchRL, ``generalized_advantage_estimate``: ``done`` is terminated or truncated, and a last
  dimension of size 1 is added, because it wants [batch, time, features].  It multiplies γ and λ
  by integer tensors, which gives PyTorch's default dtype, so that this is set to float64;
- Stable-Baselines3, ``RolloutBuffer.compute_returns_and_advantage``: it knows ends only, as
  ``episode_starts`` of the next step, and takes V(s_{t+1}) from the next row.  A time limit is
  given to it as its own ``collect_rollouts`` does: γ V(last state) is added to the reward of the
  step that the limit cut, unless the world ended at that step too.  A flag at the last row goes
  in as ``dones``.  Its arrays are replaced by float64 ones, so that the numbers can be
  compared to rounding.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from torchrl.objectives.value.functional import generalized_advantage_estimate

REFERENCE = Path(__file__).parent / "gae_reference.json"
# T, N, γ, λ, probability of a termination and of a time limit at a step
CASES = [
    (1, 1, 0.9, 0.95, 0.0, 0.0),
    (1, 3, 0.9, 0.95, 0.5, 0.5),
    (8, 2, 0.99, 0.95, 0.0, 0.0),
    (8, 2, 0.99, 0.95, 0.3, 0.0),
    (8, 2, 0.99, 0.95, 0.0, 0.3),
    (16, 4, 0.98, 0.9, 0.2, 0.2),
    (16, 4, 0.9, 0.0, 0.2, 0.2),
    (16, 4, 0.9, 1.0, 0.2, 0.2),
    (16, 4, 1.0, 1.0, 0.2, 0.2),
    (16, 4, 0.0, 0.5, 0.2, 0.2),
    (12, 3, 1.0, 0.5, 0.6, 0.6),
]


def make_inputs(index: int) -> dict:
    """Random inputs in which V(s_{t+1}) is the next row's V unless an episode ended."""
    steps, envs, _, _, p_terminated, p_truncated = CASES[index]
    rng = np.random.default_rng(index)
    rewards, values, last_values = rng.normal(size=(3, steps, envs))
    terminated = rng.random((steps, envs)) < p_terminated
    truncated = rng.random((steps, envs)) < p_truncated
    next_values = last_values.copy()
    goes_on = ~(terminated | truncated)[:-1]
    next_values[:-1][goes_on] = values[1:][goes_on]
    return {
        "rewards": rewards,
        "values": values,
        "next_values": next_values,
        "terminated": terminated,
        "truncated": truncated,
    }


def torchrl(case: dict, gamma: float, gae_lambda: float) -> np.ndarray:
    """The advantages of TorchRL."""
    tensors = {name: torch.from_numpy(x.T[..., None].copy()) for name, x in case.items()}
    advantages, _ = generalized_advantage_estimate(
        gamma,
        gae_lambda,
        tensors["values"],
        tensors["next_values"],
        tensors["rewards"],
        done=tensors["terminated"] | tensors["truncated"],
        terminated=tensors["terminated"],
    )
    return advantages[..., 0].numpy().T


def stable_baselines3(case: dict, gamma: float, gae_lambda: float) -> np.ndarray:
    """The advantages of Stable-Baselines3."""
    steps, envs = case["rewards"].shape
    ended = case["terminated"] | case["truncated"]
    limit = case["truncated"] & ~case["terminated"]
    box = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(
        steps, box, box, device="cpu", gamma=gamma, gae_lambda=gae_lambda, n_envs=envs
    )
    buffer.rewards = case["rewards"] + gamma * case["next_values"] * limit
    buffer.values = case["values"]
    buffer.episode_starts = np.concatenate([np.ones((1, envs)), ended[:-1]])
    buffer.advantages = np.zeros((steps, envs))
    last_values = torch.from_numpy(case["next_values"][-1].copy())
    buffer.compute_returns_and_advantage(last_values, dones=ended[-1])
    return buffer.advantages


def main() -> None:
    """Write the reference."""
    torch.set_default_dtype(torch.float64)
    cases = []
    for index, (_, _, gamma, gae_lambda, _, _) in enumerate(CASES):
        case = make_inputs(index)
        answers = {
            "torchrl": torchrl(case, gamma, gae_lambda),
            "stable-baselines3": stable_baselines3(case, gamma, gae_lambda),
        }
        cases.append(
            {
                "gamma": gamma,
                "gae_lambda": gae_lambda,
                "inputs": {name: x.tolist() for name, x in case.items()},
                "advantages": {name: x.tolist() for name, x in answers.items()},
            }
        )
    names = ("torchrl", "stable-baselines3", "torch", "numpy")
    reference = {
        "made_by": "tests/peers/make_reference.py",
        "versions": {name: version(name) for name in names},
        "cases": cases,
    }
    # Python writes a float with the digits that give it back exactly.
    REFERENCE.write_text(json.dumps(reference, indent=None, separators=(",", ":")) + "\n")
    print(f"{REFERENCE.name}: {len(cases)} cases, {reference['versions']}")


if __name__ == "__main__":
    main()
