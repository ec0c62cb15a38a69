"""Returns and advantages: what followed a step, and how it compares with what was expected.

All tensors are time-major, ``[T, N]``: T steps of N trajectories or environments, floating
point unless said otherwise.  ``terminated`` means that the world ended, so that nothing follows;
``truncated`` means that only the recording was cut, by a time limit say, so that what would have
followed is estimated by ``next_values``.
"""

import torch
from torch import Tensor

from ppo_lib.validate import in_unit_interval, require, same_shape


def discounted_return(rewards: Tensor, *, gamma: float) -> Tensor:
    """R(τ) = Σ_t γ^t r_t (eq-b2).

    Args:
        rewards: ``[T, N]``, 0 after the end of a trajectory.
        gamma: the discount γ, in [0, 1].

    Returns:
        ``[N]``, one return a trajectory.
    """
    return rewards_to_go(rewards, gamma=gamma)[0]


def rewards_to_go(rewards: Tensor, ended: Tensor | None = None, *, gamma: float) -> Tensor:
    """R_t = Σ_{t' ≥ t} γ^{t'-t} r_{t'} (eq-c2), to the end of the episode or of the tensor.

    Args:
        rewards: ``[T, N]``.
        ended: ``[T, N]`` bool, True at the last step of an episode; without it every column is
            one episode.
        gamma: the discount γ, in [0, 1].

    Returns:
        ``[T, N]``.
    """
    zeros = torch.zeros_like(rewards)
    ended = zeros.bool() if ended is None else ended
    _check(rewards=rewards, ended=ended)
    in_unit_interval("gamma", gamma)
    return _discounted_sums(rewards, gamma * (~ended).to(rewards.dtype))


def td_errors(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, *, gamma: float
) -> Tensor:
    """δ_t = r_t + γ V(s_{t+1}) - V(s_t) (eq-d13), where V is 0 once the world has ended.

    Args:
        rewards: ``[T, N]``.
        values: ``[T, N]``, V(s_t).
        next_values: ``[T, N]``, V(s_{t+1}) of the state that the step led to, never of the state
            after a reset; ignored where ``terminated``.
        terminated: ``[T, N]`` bool.
        gamma: the discount γ, in [0, 1].

    Returns:
        ``[T, N]``.
    """
    _check(rewards=rewards, values=values, next_values=next_values, terminated=terminated)
    in_unit_interval("gamma", gamma)
    return rewards + gamma * next_values.masked_fill(terminated, 0.0) - values


def k_step_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    k: int,
) -> Tensor:
    """Â^(k)_t, k rewards and then V, less V(s_t) (eq-d9 to eq-d12).

    It is the sum of the next k TD errors, discounted (eq-d17); the sum stops early where the
    episode or the tensor ends.

    Args:
        rewards: ``[T, N]``.
        values: ``[T, N]``, V(s_t).
        next_values: ``[T, N]``, V(s_{t+1}) of the state that the step led to.
        terminated: ``[T, N]`` bool.
        truncated: ``[T, N]`` bool.
        gamma: the discount γ, in [0, 1].
        k: the number of rewards used, an integer of at least 1.

    Returns:
        ``[T, N]``.
    """
    require(isinstance(k, int) and k >= 1, f"k is {k}, expected an integer of at least 1")
    _check(rewards=rewards, truncated=truncated)
    delta = td_errors(rewards, values, next_values, terminated, gamma=gamma)
    ended, advantages = terminated | truncated | (gamma == 0), delta
    for _ in range(min(k, len(delta)) - 1):
        # One more step ahead: the estimate of the next step, moved up by one row.
        later = torch.cat([advantages[1:], torch.zeros_like(delta[:1])])
        advantages = delta + gamma * later.masked_fill(ended, 0.0)
    return advantages


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (eq-d23; Schulman et al. 2016, arXiv:1506.02438).

    Â_t = δ_t + γλ Â_{t+1}, computed from the last step to the first.  ``terminated`` sets the
    value of the next state to 0; either flag cuts the recursion, since the next row belongs to
    another episode.  At the last row the sum stops and ``next_values`` stands for the rest.

    Args:
        rewards: ``[T, N]``.
        values: ``[T, N]``, V(s_t).
        next_values: ``[T, N]``, V(s_{t+1}) of the state that the step led to: at the end of an
            episode the true last state, never the state after the reset.
        terminated: ``[T, N]`` bool, the world ended at this step.
        truncated: ``[T, N]`` bool, the episode was cut at this step although the world goes on.
        gamma: the discount γ, in [0, 1].
        gae_lambda: λ, in [0, 1]; 0 gives the TD error, 1 the return less V.

    Returns:
        ``(advantages, returns)``, both ``[T, N]``; ``returns = advantages + values`` is what
        the critic is trained towards.

    Raises:
        ValueError: if shapes or dtypes differ from these, or a number is out of range.
    """
    in_unit_interval("gae_lambda", gae_lambda)
    _check(rewards=rewards, truncated=truncated)
    delta = td_errors(rewards, values, next_values, terminated, gamma=gamma)
    goes_on = (~(terminated | truncated)).to(delta.dtype)
    advantages = _discounted_sums(delta, gamma * gae_lambda * goes_on)
    return advantages, advantages + values


def _discounted_sums(terms: Tensor, discounts: Tensor) -> Tensor:
    """x_t = terms_t + discounts_t x_{t+1}, from the last row to the first; 0 NaN is 0."""
    later, sums = torch.zeros_like(terms[0]), []
    for term, discount in zip(terms.flip(0), discounts.flip(0), strict=True):
        later = term + (discount * later).masked_fill(discount == 0, 0.0)
        sums.append(later)
    return torch.stack(sums[::-1])


def _check(*, rewards: Tensor, **others: Tensor) -> None:
    """Refuse anything but ``[T, N]`` floats of one dtype, and bool flags of the same shape."""
    require(
        rewards.ndim == 2 and 0 not in rewards.shape,
        f"rewards has shape {tuple(rewards.shape)}, expected [T, N], T and N at least 1",
    )
    same_shape(rewards=rewards, **others)
    require(rewards.is_floating_point(), f"rewards has dtype {rewards.dtype}, expected a float")
    for name, tensor in others.items():
        flag = name in ("terminated", "truncated", "ended")
        expected = torch.bool if flag else rewards.dtype
        require(tensor.dtype == expected, f"{name} has dtype {tensor.dtype}, expected {expected}")
