"""Objectives: the losses that a policy gradient, PPO and its critic descend.

Losses are scalars to be minimised.  Log-probabilities, advantages and values of one call have
one shape, so that ``[B]`` and ``[B, 1]`` can never be broadcast to ``[B, B]`` unseen.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ppo_lib.validate import not_empty, require, same_shape


def policy_gradient_loss(log_probs: Tensor, weights: Tensor) -> Tensor:
    """-1/N Σ_n Σ_t w^n_t log π_θ(a^n_t | s^n_t): its gradient is minus eq-b12.

    The sum over time is a sum and the mean is over trajectories.

    Args:
        log_probs: ``[T, N]``, log π_θ(a_t | s_t).
        weights: ``[T, N]``, what stands for the return: R(τ), a reward-to-go, an advantage;
            0 after the end of a trajectory.  No gradient flows through it.

    Returns:
        The loss, a scalar.
    """
    same_shape(log_probs=log_probs, weights=weights)
    not_empty("log_probs", log_probs)
    require(log_probs.ndim == 2, f"log_probs has shape {tuple(log_probs.shape)}, expected [T, N]")
    return -(weights.detach() * log_probs).sum(dim=0).mean()


def importance_ratio(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """ρ(θ) = π_θ(a | s) / π_θ'(a | s) (eq-e8), from the difference of the logarithms.

    Args:
        log_probs: log π_θ(a | s), any shape.
        old_log_probs: log π_θ'(a | s), the same shape.  No gradient flows through it.
    """
    same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    return (log_probs - old_log_probs.detach()).exp()


def effective_sample_size(ratios: Tensor) -> float:
    """(Σ w)² / Σ w² (eq-e6): how many equally weighted samples are worth as much as these.

    Args:
        ratios: importance weights w, any shape, finite, not negative and not all 0.

    Returns:
        From 1, where one sample outweighs all others, to the number of samples.
    """
    require(bool((ratios >= 0).all()), "ratios holds a negative weight, or NaN")
    largest = ratios.max().item() if ratios.numel() else 0.0
    require(0 < largest < torch.inf, f"ratios go up to {largest}, expected a number above 0")
    ratios = ratios.double() / largest
    return (ratios.sum() ** 2 / (ratios**2).sum()).item()


def surrogate_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """-mean(ρ(θ) Â) (eq-e10), over all steps given.

    Args:
        log_probs: log π_θ(a | s), any shape.
        old_log_probs: log π_θ'(a | s) of the policy that drew the actions, the same shape.
        advantages: Â of the old policy, the same shape.

    Returns:
        A scalar; ±∞ or NaN where ρ overflows, log ρ above 11.09 in float16 or 88.7 in float32.
    """
    same_shape(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages)
    not_empty("log_probs", log_probs)
    return -(importance_ratio(log_probs, old_log_probs) * advantages.detach()).mean()


def clipped_surrogate_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip_range: float
) -> Tensor:
    """-mean(min(ρ Â, clip(ρ, 1-ε, 1+ε) Â)) (eq-e13; arXiv:1707.06347, equation 7).

    Computed as -mean(min(ρ Â, Â + ε |Â|)) (eq-clip-bound), the same numbers in fewer operations.

    Args:
        log_probs: log π_θ(a | s), any shape.
        old_log_probs: log π_θ'(a | s), the same shape.
        advantages: Â of the old policy, the same shape.
        clip_range: ε, above 0.

    Returns:
        The loss, a scalar.
    """
    require(0 < clip_range < torch.inf, f"clip_range is {clip_range}, expected a number above 0")
    same_shape(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages)
    not_empty("log_probs", log_probs)
    advantages = advantages.detach()
    log_ratio = log_probs - old_log_probs.detach()
    # Past a binding clip ρ must not overflow: a gradient of 0 times ∞ would be NaN.
    log_ratio = log_ratio.where(advantages < 0, log_ratio.clamp(max=math.log1p(clip_range) + 1))
    # Where the clip binds it is at 1 + ε for a positive advantage, at 1 - ε for a negative one.
    bound = advantages + clip_range * advantages.abs()
    return -torch.min(log_ratio.exp() * advantages, bound).mean()


def kl_penalty_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, kl: Tensor, *, kl_coef: float
) -> Tensor:
    """-mean(ρ Â) + β mean(KL) (eq-e12; arXiv:1707.06347, equation 8).

    Args:
        log_probs: log π_θ(a | s), any shape.
        old_log_probs: log π_θ'(a | s), the same shape.
        advantages: Â of the old policy, the same shape.
        kl: KL(π_θ'(· | s) ‖ π_θ(· | s)) of every state, the same shape; gradients flow through it.
        kl_coef: β, at least 0.

    Returns:
        The loss, a scalar.
    """
    require(0 <= kl_coef < torch.inf, f"kl_coef is {kl_coef}, expected a number of at least 0")
    same_shape(log_probs=log_probs, kl=kl)
    return surrogate_loss(log_probs, old_log_probs, advantages) + kl_coef * kl.mean()


def adapt_kl_coef(kl_coef: float, kl: float, *, kl_target: float) -> float:
    """The next β: halved if KL < target / 1.5, doubled if KL > 1.5 target (arXiv:1707.06347, §4).

    Args:
        kl_coef: β, at least 0; halved down to 1e-6 and doubled up to 1e6, so that it comes back.
        kl: the mean KL(π_θ' ‖ π_θ) after an update, at least 0 but for rounding.
        kl_target: d_targ, above 0.
    """
    require(0 <= kl_coef < torch.inf, f"kl_coef is {kl_coef}, expected a number of at least 0")
    require(kl > -1e-6, f"kl is {kl}, expected a number of at least 0")
    require(kl_target > 0, f"kl_target is {kl_target}, expected a number above 0")
    if kl < kl_target / 1.5:
        return max(kl_coef / 2, min(kl_coef, 1e-6))
    if kl > kl_target * 1.5:
        return min(kl_coef * 2, max(kl_coef, 1e6))
    return kl_coef


def value_loss(
    values: Tensor,
    returns: Tensor,
    old_values: Tensor | None = None,
    *,
    clip_range: float | None = None,
) -> Tensor:
    """Half the mean squared error of the critic, whose minimum is the mean return (eq-d2).

    Args:
        values: V_φ(s), any shape.
        returns: what V_φ is trained towards, the same shape.  No gradient flows through it.
        old_values: V_φ(s) when the data was collected, the same shape; only with ``clip_range``.
        clip_range: if given, the error of V_φ clipped to ``old_values ± clip_range`` is taken
            wherever it is the larger one, as in OpenAI's baselines.

    Returns:
        The loss, a scalar.
    """
    same_shape(values=values, returns=returns)
    not_empty("values", values)
    require(
        (old_values is None) == (clip_range is None),
        "old_values and clip_range go together: give both or neither",
    )
    returns = returns.detach()
    if old_values is None or clip_range is None:
        return 0.5 * mse_loss(values, returns)
    require(clip_range > 0, f"clip_range is {clip_range}, expected a number above 0")
    same_shape(values=values, old_values=old_values)
    old_values = old_values.detach()
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2).mean()


def kl_k1(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """-log ρ: an unbiased estimate of KL(π_θ' ‖ π_θ) a step, when π_θ' drew the actions.

    This and the next two are Schulman's estimators, "Approximating KL divergence" (2020).

    Args:
        log_probs: log π_θ(a | s), any shape.
        old_log_probs: log π_θ'(a | s), the same shape.
    """
    same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    return old_log_probs - log_probs


def kl_k2(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """(log ρ)² / 2: never negative and of low variance, but biased; arguments as `kl_k1`."""
    return kl_k1(log_probs, old_log_probs) ** 2 / 2


def kl_k3(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """ρ - 1 - log ρ: unbiased and never negative; arguments as `kl_k1`."""
    log_ratio = -kl_k1(log_probs, old_log_probs)
    return log_ratio.expm1() - log_ratio


def normalize_advantages(advantages: Tensor) -> Tensor:
    """Advantages less their mean, over their standard deviation; one alone is left as it is.

    Args:
        advantages: any shape, floating point.  A single number has no spread to divide by, and
            less its mean it would be 0: a minibatch of one would teach nothing.
    """
    dtype = advantages.dtype
    require(dtype.is_floating_point, f"advantages has dtype {dtype}, expected a float")
    if advantages.numel() < 2:
        return advantages
    if dtype.itemsize < 4:  # in which squares overflow, and 1e-8 is 0
        return normalize_advantages(advantages.float()).to(dtype)
    advantages = advantages - advantages.flatten()[0]  # equal ones then have no rounded mean
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant one.

    Args:
        values: V_φ(s), any shape.
        returns: what followed, the same shape.

    Returns:
        At most 1; NaN where all returns are equal or there is one alone, with nothing to explain.
    """
    same_shape(values=values, returns=returns)
    if returns.numel() < 2 or bool((returns == returns.flatten()[0]).all()):
        return float("nan")
    values, returns = (x.double() / returns.abs().max().double() for x in (values, returns))
    return 1 - (returns - values).var().item() / returns.var().item()
