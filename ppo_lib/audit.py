"""An audit of your own code: each check runs your function on small cases with known answers.

Where the numbers differ, a catalogue of known mistakes is searched for the one that gives
exactly yours, and `BugFound` says its name.  The right numbers are written as plain sums here
and use nothing else of this library.

Your function gets torch tensors of float64, or numpy arrays with ``arrays="numpy"``, and may
compute in float32:

====================== ==================================================================
check                  your function
====================== ==================================================================
check_my_gae           ``f(rewards, values, next_values, terminated, truncated, gamma,
                       gae_lambda)``, ``[T, N]`` each, gives the advantages or
                       ``(advantages, returns)``
check_my_policy_loss   ``f(log_probs, old_log_probs, advantages, clip_range)``, ``[B]`` each,
                       gives the loss to be minimised
check_my_value_loss    ``f(values, returns)``, ``[B]`` each, gives the mean squared error or
                       half of it
check_my_kl            ``f(old_logits, logits)``, ``[B, A]`` each, gives KL(old ‖ new), ``[B]``
check_my_entropy       ``f(logits)``, ``[B, A]``, gives ``[B]``
check_my_log_prob      ``f(mean, log_std, actions)``, ``[B, D]`` each, gives ``[B]``
check_my_normalize     ``f(advantages)``, ``[B]``, gives ``[B]``
check_my_rollout       ``collect(make_env, num_steps)`` gives a dictionary, see there
check_my_trainer       ``train(make_env, gamma)`` gives what was learned, see there
====================== ==================================================================
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from ppo_lib.validate import require

Array = np.ndarray
Function = Callable[..., Any]
Catalogue = Mapping[str, Function]


class BugFound(AssertionError):
    """Your function gives other numbers than the right ones.

    Attributes:
        bug: the name of the known mistake that gives these numbers; None if there is none.
    """

    def __init__(self, words: str, bug: str | None = None) -> None:
        super().__init__(words)
        self.bug = bug


@dataclass(frozen=True)
class Passed:
    """What was audited and found right."""

    what: str
    cases: int

    def __repr__(self) -> str:
        return f"{self.what}: right in all {self.cases} cases"


# ------------------------------------------------------------------------------ the engine


def _numbers(x: Any) -> Array:
    try:
        require(x is not None, "it has no return, say")
        return np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"your function gives {x!r}, expected numbers") from error


def _call(f: Function, what: str, case: tuple, arrays: str) -> Any:
    """What your function gives; an error in it says what it was given."""
    make = _as(arrays)
    try:
        return f(*(make(x) if isinstance(x, np.ndarray) else x for x in case))
    except Exception as error:
        given = [f"{list(x.shape)} {x.dtype}" if isinstance(x, np.ndarray) else x for x in case]
        kind = "torch tensors" if arrays == "torch" else "numpy arrays"
        error.add_note(
            f"your {what} was given {', '.join(map(str, given))} as {kind}; "
            'arrays="numpy" and arrays="torch" choose'
        )
        raise


def _as(arrays: str) -> Function:
    require(arrays in ("torch", "numpy"), f"arrays is {arrays!r}, expected 'torch' or 'numpy'")
    return torch.tensor if arrays == "torch" else np.array


#: What float32 may differ by, in which many compute whatever they are given.
_ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, **_ROUNDING))


def _audit(
    what: str,
    f: Function,
    cases: Sequence[tuple],
    right: Function,
    wrong: Catalogue,
    arrays: str,
    place: Callable[[tuple[int, ...]], str] = lambda at: f" at row {at[0]}" if at else "",
) -> Passed:
    """Hold a function against the right one on all cases, and name what it is where it differs."""
    found = [_numbers(_call(f, what, case, arrays)) for case in cases]
    expected = [_numbers(right(*case)) for case in cases]
    for mine, theirs in zip(found, expected, strict=True):
        if mine.shape != theirs.shape:
            raise BugFound(f"your {what} gives shape {mine.shape}, expected {theirs.shape}")
    where = _first_difference(found, expected, place)
    if where is None:
        return Passed(what, len(cases))
    for name, mistake in wrong.items():
        if all(_same(a, _numbers(mistake(*case))) for a, case in zip(found, cases, strict=True)):
            raise BugFound(f"your {what} gives what one gives that {name} ({where})", name)
    raise BugFound(f"your {what} makes none of the {len(wrong)} known mistakes, but {where}")


def _first_difference(
    found: Sequence[Array], expected: Sequence[Array], place: Callable[[tuple[int, ...]], str]
) -> str | None:
    for case, (mine, right) in enumerate(zip(found, expected, strict=True), start=1):
        differs = ~np.isclose(mine, right, **_ROUNDING)
        if differs.any():
            at = tuple(int(i) for i in np.argwhere(differs)[0])
            return f"case {case} differs{place(at)}: yours {mine[at]:.4g}, right {right[at]:.4g}"
    return None


def _dice(shape: tuple[int, ...], seed: int) -> Array:
    """Numbers with one digit after the point."""
    return np.random.default_rng(seed).normal(size=shape).round(1)


# --------------------------------------------------------------------------------- returns


def _gae(
    r: Array,
    v: Array,
    w: Array,
    dead: Array,
    cut: Array,
    gamma: float,
    gae_lambda: float,
    *,
    ends: Function = lambda dead, cut: dead | cut,
    masks: Function = lambda dead, cut: dead,  # noqa: ARG005
    factor: Function = lambda gamma, lam: gamma * lam,
    gamma_of_delta: Function = lambda gamma: gamma,
    reads_next: bool = True,
) -> tuple[Array, Array]:
    """The sum of the TD errors up to the end of the episode, in which one thing can be changed."""
    delta = r + gamma_of_delta(gamma) * w * ~masks(dead, cut) - v
    over, advantages = ends(dead, cut), np.zeros_like(r)
    for t in range(len(r)):
        alive = np.ones(r.shape[1])
        for later in range(t, len(r) if reads_next else t + 1):
            advantages[t] += factor(gamma, gae_lambda) ** (later - t) * alive * delta[later]
            alive = alive * ~over[later]
    return advantages, advantages + v


def _late(x: Array) -> Array:
    return np.concatenate([x[1:], x[-1:]])


def _shifted(r: Array, v: Array, w: Array, *rest: Any, **changes: Any) -> Any:
    return _gae(r, v, np.concatenate([v[1:], w[-1:]]), *rest, **changes)


def _standard(x: Array, ddof: int) -> Array:
    return (x - x.mean()) / x.std(ddof=ddof)


def _gae_standard(*case: Any, ddof: int) -> tuple[Array, Array]:
    advantages, targets = _gae(*case)
    return _standard(advantages, ddof), targets


def _either(dead: Array, cut: Array) -> Array:
    return dead | cut


def _never(dead: Array, _: Array) -> Array:
    return np.zeros_like(dead)


GAE_MISTAKES: Catalogue = {
    "treats a time limit as a death": partial(_gae, masks=lambda dead, cut: dead | cut),
    "ignores both flags": partial(_gae, masks=_never, ends=_never),
    "looks at the value after a death": partial(_gae, masks=_never),
    "lets the next episode leak in": partial(_gae, ends=_never),
    "lets the next episode leak in after a time limit": partial(_gae, ends=lambda dead, _: dead),
    "cuts the recursion only where both flags are set": partial(
        _gae, ends=lambda dead, cut: dead & cut
    ),
    "does not cut the recursion where both flags are set": partial(
        _gae, ends=lambda dead, cut: dead ^ cut
    ),
    "has lost γ in the recursion": partial(_gae, factor=lambda _, lam: lam),
    "has lost λ in the recursion": partial(_gae, factor=lambda gamma, _: gamma),
    "has lost γ in the TD error": partial(_gae, gamma_of_delta=lambda _: 1.0),
    "reads its own entry in the recursion": partial(_gae, reads_next=False),
    "takes the flags of the step after": lambda r, v, w, dead, cut, *g: _gae(
        r, v, w, _late(dead), _late(cut), *g
    ),
    "takes the next row's value for the next state's": _shifted,
    "takes the next row's value for the next state's, and a time limit for a death": partial(
        _shifted, masks=_either
    ),
    "takes the next row's value and flags, and a time limit for a death": (
        lambda r, v, w, dead, cut, *g: _shifted(r, v, w, _late(dead), _late(cut), *g, masks=_either)
    ),
    "has swapped γ and λ": lambda *case: _gae(*case[:5], case[6], case[5]),
    "has swapped the two flags": lambda *case: _gae(*case[:3], case[4], case[3], *case[5:]),
    "has swapped rewards and values": lambda r, v, *rest: _gae(v, r, *rest),
    "gives the critic's targets first": lambda *case: _gae(*case)[::-1],
    "standardises the advantages": partial(_gae_standard, ddof=1),
    "standardises the advantages, with the divisor B": partial(_gae_standard, ddof=0),
    "takes the values for the critic's targets": lambda *case: (_gae(*case)[0], case[1]),
    "takes the advantages for the critic's targets": lambda *case: (_gae(*case)[0],) * 2,
}


def _gae_cases() -> list[tuple]:
    flags = np.zeros((5, 2), dtype=bool)
    death, limit, last = flags.copy(), flags.copy(), flags.copy()
    death[2, 0], limit[1, 1], last[4] = True, True, (True, False)
    ends = [(flags, flags), (death, flags), (flags, limit), (death, limit), (last, limit)]
    ends.append((death, death))  # a death in the last step that a time limit allows
    return [
        (*(_dice((5, 2), 3 * i + j) for j in range(3)), *pair, 0.9, 0.8)
        for i, pair in enumerate(ends)
    ]


def check_my_gae(f: Function, *, arrays: str = "torch") -> Passed:
    """Audit a function that estimates advantages (eq-d23 with eq-d24 and eq-d25).

    Args:
        f: ``f(rewards, values, next_values, terminated, truncated, gamma, gae_lambda)``: five
            arrays ``[T, N]``, the flags bool, and two numbers.  ``next_values`` are those of the
            states that the steps led to, before any reset.  It gives the advantages, or
            ``(advantages, returns)`` with what the critic is trained towards.
        arrays: "torch" or "numpy".

    Raises:
        BugFound: if a number differs; with the mistake's name if it is a known one.
    """
    with_targets = isinstance(_call(f, "gae", _gae_cases()[0], arrays), tuple)

    def both(g: Function) -> Function:
        def flat(*case: Any) -> Array:
            result = g(*case)
            advantages = result[0] if isinstance(result, tuple) else result
            return np.stack([_numbers(x) for x in result]) if with_targets else advantages

        return flat

    wrong = {name: both(mistake) for name, mistake in GAE_MISTAKES.items()}

    def place(at: tuple[int, ...]) -> str:
        *which, step, column = at
        return (
            f" in the {'target' if which == [1] else 'advantage'} of step {step}, column {column}"
        )

    return _audit("gae", both(f), _gae_cases(), both(_gae), wrong, arrays, place)


# ---------------------------------------------------------------------------------- losses


def _clipped(
    new: Array,
    old: Array,
    advantages: Array,
    clip_range: float,
    *,
    ratio: Function = lambda new, old: np.exp(new - old),
    pick: Function = np.minimum,
    mean: Function = np.mean,
    sign: int = -1,
) -> Array:
    rho = ratio(new, old)
    clipped = rho.clip(1 - clip_range, 1 + clip_range)
    return sign * mean(pick(rho * advantages, clipped * advantages))


def _clipped_standard(
    new: Array, old: Array, advantages: Array, clip_range: float, *, ddof: int
) -> Array:
    return _clipped(new, old, _standard(advantages, ddof), clip_range)


POLICY_LOSS_MISTAKES: Catalogue = {
    "has lost its minus sign": partial(_clipped, sign=1),
    "takes the larger term, max for min": partial(_clipped, pick=np.maximum),
    "takes the smaller ratio before it multiplies": lambda new, old, a, c: (
        -np.mean(np.exp(new - old).clip(max=1 + c) * a)
    ),
    "divides the old probability by the new one": partial(
        _clipped, ratio=lambda new, old: np.exp(old - new)
    ),
    "compares the new policy with itself": partial(
        _clipped, ratio=lambda new, _: np.ones_like(new)
    ),
    "takes log-probabilities for probabilities": partial(
        _clipped, ratio=lambda new, old: new / old
    ),
    "does not clip": partial(_clipped, pick=lambda term, _: term),
    "takes the clipped term alone": partial(_clipped, pick=lambda _, clipped: clipped),
    "sums over the minibatch": partial(_clipped, mean=np.sum),
    "averages before it takes the smaller term": lambda new, old, a, c: (
        -min(np.mean(np.exp(new - old) * a), np.mean(np.exp(new - old).clip(1 - c, 1 + c) * a))
    ),
    "clips from above alone": lambda new, old, a, c: (
        -np.mean(np.minimum(np.exp(new - old) * a, np.exp(new - old).clip(max=1 + c) * a))
    ),
    "clips from below alone": lambda new, old, a, c: (
        -np.mean(np.minimum(np.exp(new - old) * a, np.exp(new - old).clip(min=1 - c) * a))
    ),
    "clips the logarithm of the ratio": lambda new, old, a, c: (
        -np.mean(np.minimum(np.exp(new - old) * a, np.exp((new - old).clip(-c, c)) * a))
    ),
    "takes the logarithm of the ratio for the ratio": partial(
        _clipped, ratio=lambda new, old: new - old
    ),
    "holds every ratio against every advantage": lambda new, old, a, c: _clipped(
        new, old, a[:, None], c
    ),
    "standardises the advantages": partial(_clipped_standard, ddof=1),
    "standardises the advantages, with the divisor B": partial(_clipped_standard, ddof=0),
}


def check_my_policy_loss(f: Function, *, arrays: str = "torch") -> Passed:
    """Audit a clipped surrogate loss (eq-e13), its gradient too where it takes torch tensors.

    Args:
        f: ``f(log_probs, old_log_probs, advantages, clip_range)``: three arrays ``[B]`` and a
            number.  It gives the loss, to be minimised; advantages are taken as they are.
        arrays: "torch" or "numpy".

    Raises:
        BugFound: if a number differs; with the mistake's name if it is a known one.
    """
    log_ratios = np.array([0.6, 0.6, -0.7, -0.7, 0.05, -0.1])
    signs = np.array([1.5, -1.0, 2.0, -0.5, 0.8, -1.2])
    old = np.array([-0.7, -1.1, -0.4, -2.0, -0.9, -1.6])
    cases: list[tuple] = [
        (old + log_ratios, old, signs, 0.2),
        (old + log_ratios, old, -signs, 0.3),
        (old + log_ratios[:1], old[:1] + old * 0, signs, 0.1),
    ]
    passed = _audit("policy loss", f, cases, _clipped, POLICY_LOSS_MISTAKES, arrays)
    if arrays == "torch":
        new, old_log_probs = (torch.tensor(x, requires_grad=True) for x in cases[0][:2])
        loss = f(new, old_log_probs, torch.tensor(signs), 0.2)
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            loss.backward()
        if new.grad is None or not new.grad.any():
            name = "lets no gradient through to the new policy"
            raise BugFound(f"your policy loss {name}, though its value is right", name)
        # 0 where the clip binds, -ρ Â / B elsewhere.
        inside = np.array([0, 1, 1, 0, 1, 1]) * np.exp(log_ratios) * signs / -6
        where = _first_difference([_numbers(new.grad)], [inside], lambda at: f" at row {at[0]}")
        if where is not None:
            raise BugFound(f"your policy loss has a right value and a wrong gradient: {where}")
    return passed


VALUE_LOSS_MISTAKES: Catalogue = {
    "sums over the minibatch": lambda v, r: np.sum((v - r) ** 2),
    "takes the absolute error": lambda v, r: np.mean(np.abs(v - r)),
    "takes the Huber loss": lambda v, r: np.mean(
        np.where(np.abs(v - r) < 1, (v - r) ** 2 / 2, np.abs(v - r) - 0.5)
    ),
    "holds every value against every return": lambda v, r: np.mean((v[:, None] - r) ** 2),
    "holds the mean value against the mean return": lambda v, r: (v.mean() - r.mean()) ** 2,
}


def check_my_value_loss(f: Function, *, arrays: str = "torch") -> Passed:
    """Audit the critic's loss (eq-value-loss), on values ``[B]`` and ``[B, 1]``, as networks give.

    Args:
        f: ``f(values, returns)``: the mean squared error, or half of it.  Values ``[B, 1]``
            against returns ``[B]`` are either refused or taken row by row, and no gradient
            flows through the returns, whoever has computed them.
        arrays: "torch" or "numpy".

    Raises:
        BugFound: if a number differs; with the mistake's name if it is a known one.
    """
    values, returns = _dice((6,), 1), _dice((6,), 2)
    make = _as(arrays)
    mine, whole = _numbers(f(make(values), make(returns))), np.mean((values - returns) ** 2)
    half = 0.5 if _same(mine, np.asarray(whole / 2)) else 1.0
    scaled = VALUE_LOSS_MISTAKES | {
        f"{name}, with a half": (lambda v, r, g=g: g(v, r) / 2)
        for name, g in VALUE_LOSS_MISTAKES.items()
    }
    right = lambda v, r: half * np.mean((v.reshape(r.shape) - r) ** 2)  # noqa: E731
    cases = [(values, returns), (returns, values * 2)]
    _audit("value loss", f, cases, right, scaled, arrays)
    if arrays == "torch":
        value, target = (torch.tensor(x, requires_grad=True) for x in (values, returns))
        loss = f(value, target)
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            loss.backward()
        if value.grad is None or not value.grad.any():
            name = "lets no gradient through to the values"
            raise BugFound(f"your value loss {name}, though its value is right", name)
        if target.grad is not None and target.grad.any():
            name = "lets a gradient through to the targets"
            raise BugFound(f"your value loss {name}: detach the returns", name)
    try:
        column = _numbers(f(make(values[:, None]), make(returns)))
    except Exception:  # a refusal of any kind is right
        return Passed("value loss", 4)
    if _same(column, np.asarray(half * np.mean((values[:, None] - returns) ** 2))):
        name = "holds every value against every return"
        raise BugFound(
            f"your value loss {name} where values are [B, 1] and returns [B]: yours "
            f"{column:.4g}, right {half * whole:.4g}; refuse two shapes, or flatten",
            name,
        )
    if not _same(column, np.asarray(half * whole)):
        raise BugFound(f"your value loss gives {column} for values [B, 1], right {half * whole}")
    return Passed("value loss", 4)


# --------------------------------------------------------------------------- distributions


def _log_softmax(x: Array) -> Array:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _kl(old: Array, new: Array) -> Array:
    p, q = _log_softmax(old), _log_softmax(new)
    return (np.exp(p) * (p - q)).sum(-1)


def _entropy(logits: Array) -> Array:
    p = _log_softmax(logits)
    return -(np.exp(p) * p).sum(-1)


KL_MISTAKES: Catalogue = {
    "has swapped the two policies": lambda old, new: _kl(new, old),
    "has lost its sign": lambda old, new: -_kl(old, new),
    "averages over the actions": lambda old, new: _kl(old, new) / old.shape[-1],
    "counts in bits": lambda old, new: _kl(old, new) / math.log(2),
    "gives the cross-entropy": lambda old, new: _kl(old, new) + _entropy(old),
    "does not weigh by the probabilities": lambda old, new: (
        _log_softmax(old) - _log_softmax(new)
    ).sum(-1),
    "weighs by the new policy": lambda old, new: (
        np.exp(_log_softmax(new)) * (_log_softmax(old) - _log_softmax(new))
    ).sum(-1),
    "takes logits for log-probabilities": lambda old, new: (
        np.exp(_log_softmax(old)) * (old - new)
    ).sum(-1),
    "takes the new logits for log-probabilities": lambda old, new: (
        np.exp(_log_softmax(old)) * (_log_softmax(old) - new)
    ).sum(-1),
    "takes the softmax over the minibatch": lambda old, new: (
        np.exp(_log_softmax(old.T)) * (_log_softmax(old.T) - _log_softmax(new.T))
    ).sum(0),
}
ENTROPY_MISTAKES: Catalogue = {
    "has lost its minus sign": lambda x: -_entropy(x),
    "averages over the actions": lambda x: _entropy(x) / x.shape[-1],
    "counts in bits": lambda x: _entropy(x) / math.log(2),
    "takes the softmax twice": lambda x: _entropy(np.exp(_log_softmax(x))),
    "does not weigh by the probabilities": lambda x: -_log_softmax(x).sum(-1),
    "takes logits for log-probabilities": lambda x: -(np.exp(_log_softmax(x)) * x).sum(-1),
    "takes the softmax over the minibatch": lambda x: (
        -(np.exp(_log_softmax(x.T)) * _log_softmax(x.T)).sum(0)
    ),
}


def _log_density(mean: Array, log_std: Array, actions: Array) -> Array:
    """``[B, D]``, before the sum over D."""
    z = (actions - mean) / np.exp(log_std)
    return -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)


LOG_PROB_MISTAKES: Catalogue = {
    "averages over the action": lambda m, s, a: _log_density(m, s, a).mean(-1),
    "has lost the logarithm of the standard deviation": lambda m, s, a: (
        _log_density(m, s, a) + s
    ).sum(-1),
    "has lost the 2π": lambda m, s, a: (_log_density(m, s, a) + 0.5 * math.log(2 * math.pi)).sum(
        -1
    ),
    "takes the logarithm for the standard deviation": lambda m, s, a: _log_density(
        m, np.log(np.abs(s)), a
    ).sum(-1),
    "takes the standard deviation for the variance": lambda m, s, a: _log_density(m, s / 2, a).sum(
        -1
    ),
    "takes the variance for the standard deviation": lambda m, s, a: _log_density(m, s * 2, a).sum(
        -1
    ),
    "has lost its minus sign": lambda m, s, a: -_log_density(m, s, a).sum(-1),
    "has lost the half of the square": lambda m, s, a: (
        _log_density(m, s, a) - 0.5 * ((a - m) / np.exp(s)) ** 2
    ).sum(-1),
    "gives the density and not its logarithm": lambda m, s, a: np.exp(
        _log_density(m, s, a).sum(-1)
    ),
}


def check_my_kl(f: Function, *, arrays: str = "torch") -> Passed:
    """Audit KL(old ‖ new) of categorical policies, the one of the penalty (eq-e12).

    Args:
        f: ``f(old_logits, logits)``, both ``[B, A]``; gives ``[B]``, in nats.
        arrays: "torch" or "numpy".

    Raises:
        BugFound: if a number differs; with the mistake's name if it is a known one.
    """
    cases = [(_dice((4, 3), i), _dice((4, 3), i + 9)) for i in range(3)]
    return _audit("KL", f, cases, _kl, KL_MISTAKES, arrays)


def check_my_entropy(f: Function, *, arrays: str = "torch") -> Passed:
    """Audit the entropy of categorical policies, the one of the bonus (eq-ppo-loss).

    Args:
        f: ``f(logits)``, ``[B, A]``; gives ``[B]``, in nats.
        arrays: "torch" or "numpy".

    Raises:
        BugFound: if a number differs; with the mistake's name if it is a known one.
    """
    cases = [(2 * _dice((4, 3), i),) for i in range(3)]
    return _audit("entropy", f, cases, _entropy, ENTROPY_MISTAKES, arrays)


def check_my_log_prob(f: Function, *, arrays: str = "torch") -> Passed:
    """Audit the log-density of a diagonal Gaussian, whose difference is the log of eq-e8.

    Args:
        f: ``f(mean, log_std, actions)``, ``[B, D]`` each; gives ``[B]``.
        arrays: "torch" or "numpy".

    Raises:
        BugFound: if a number differs; with the mistake's name if it is a known one.
    """
    cases = [(_dice((4, 3), i), _dice((4, 3), i + 5) + 0.05, _dice((4, 3), i + 9)) for i in (0, 1)]
    cases = [(mean, np.abs(log_std), actions) for mean, log_std, actions in cases]
    right = lambda *case: _log_density(*case).sum(-1)  # noqa: E731
    return _audit("log-probability", f, cases, right, LOG_PROB_MISTAKES, arrays)


NORMALIZE_MISTAKES: Catalogue = {
    "does not subtract the mean": lambda x: x / x.std(),
    "does not divide by the standard deviation": lambda x: x - x.mean(),
    "divides by the variance": lambda x: (x - x.mean()) / x.var(),
    "divides by the range": lambda x: (x - x.mean()) / (x.max() - x.min()),
    "divides by the norm": lambda x: (x - x.mean()) / np.linalg.norm(x - x.mean()),
}


def check_my_normalize(f: Function, *, arrays: str = "torch") -> Passed:
    """Audit the standardising of a minibatch's advantages: of many, of equal ones, of one alone.

    Args:
        f: ``f(advantages)``, ``[B]``; gives ``[B]``.  The divisor B or B - 1 is taken from what
            it gives; a small number beside the standard deviation is allowed.
        arrays: "torch" or "numpy".

    Raises:
        BugFound: if a number differs; with the mistake's name if it is a known one.
    """
    make = _as(arrays)
    x = _dice((8,), 3) * 10
    ddof = int(_same(_numbers(f(make(x))), (x - x.mean()) / x.std(ddof=1)))
    right = lambda x: (x - x.mean()) / x.std(ddof=ddof)  # noqa: E731
    _audit("normalisation", f, [(x,), (x[:3],)], right, NORMALIZE_MISTAKES, arrays)
    for case, name in (
        (np.array([3.0]), "of a single advantage"),
        (np.full(7, 0.1, dtype=np.float32), "of equal advantages"),
    ):
        found = _numbers(f(make(case)))
        if not np.isfinite(found).all():
            bug = f"makes NaN {name}"
            raise BugFound(f"your normalisation {bug}: every parameter becomes NaN after it", bug)
        if len(case) == 1 and not found.any():
            bug = f"makes 0 {name}"
            raise BugFound(f"your normalisation {bug}: a minibatch of one teaches nothing", bug)
        if len(case) > 1 and np.abs(found).max() > 1e-2:
            bug = f"divides the rounding noise {name}"
            raise BugFound(f"your normalisation {bug}: {found[0]:.2g} of seven times 0.1", bug)
    return Passed("normalisation", 4)


# --------------------------------------------------------------------- rollouts and trainers


class Walk(gym.Env):
    """Observes 100 times the number of the episode plus the number of steps taken in it.

    It pays 1 a step, and ends after three: by a death, or for ``limit`` by being cut.  Actions
    are numbers within ±0.1, so that most draws of a standard normal number are outside.
    """

    observation_space = gym.spaces.Box(0, 1e6, (1,))
    action_space = gym.spaces.Box(-0.1, 0.1, (1,))

    def __init__(self, *, limit: bool) -> None:
        self.limit, self.episode = limit, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """The next episode."""
        super().reset(seed=seed, options=options)
        self.episode, self.count = self.episode + 1, 0
        return self._seen(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        """One step."""
        self.count += 1
        over = self.count == 3
        return self._seen(), 1.0, over and not self.limit, over and self.limit, {}

    def _seen(self) -> Array:
        return np.array([100 * self.episode + self.count], dtype=np.float32)


def check_my_rollout(collect: Function) -> Passed:
    """Audit what is stored of each step, in a world where every observation names its step.

    Args:
        collect: ``collect(make_env, num_steps)``: takes steps in one environment that
            ``make_env()`` makes, a `gymnasium.Env` with a Box of one number for observations and
            actions, with your own vectors and wrappers.  It gives a dictionary of what your
            trainer learns from, T rows each: "obs", "actions", "rewards", "next_obs",
            "terminated", "truncated".  "next_obs" is what the value after the step is computed
            from.

    Raises:
        BugFound: if a row is wrong; with the mistake's name if it is a known one.
    """
    for limit in (False, True):
        rows = collect(lambda limit=limit: Walk(limit=limit), 10)
        names = ("obs", "next_obs", "actions", "rewards", "terminated", "truncated")
        missing = [name for name in names if name not in rows]
        require(not missing, f"your rollout has no {missing}, expected {names}")
        obs, after, actions, *rest = (_numbers(rows[name]).reshape(-1) for name in names)
        lengths = [len(x) for x in (obs, after, actions, *rest)]
        require(
            0 < min(lengths) == max(lengths),
            f"your rollout has {lengths} rows of {names}, expected as many of each",
        )
        kind = "limit" if limit else "death"
        for name, place, words in _wrong_rows(obs, after, actions, *rest, limit=limit):
            if place.any():
                t = int(np.argmax(place))
                raise BugFound(
                    f"your rollout {name}: row {t} goes from {obs[t]:g} to {after[t]:g}{words} "
                    f"(episodes of three steps, ended by a {kind})",
                    name,
                )
        if not np.array_equal(after, obs + 1):
            t = int(np.argmax(after != obs + 1))
            raise BugFound(f"your rollout goes from {obs[t]:g} to {after[t]:g} in row {t}")
    return Passed("rollout", 2)


def _wrong_rows(
    obs: Array,
    after: Array,
    actions: Array,
    rewards: Array,
    dead: Array,
    cut: Array,
    *,
    limit: bool,
) -> Iterator[tuple[str, Array, str]]:
    """Each known mistake, the rows that have it, and what else to say."""
    ended = after % 100 == 3
    yield "stores the observation after the step", np.full(len(obs), (obs == after).all()), ""
    yield "holds a reset as if it were a step", obs % 100 == 3, ", and its action was ignored"
    yield (
        "takes the first observation after the reset",
        (obs % 100 == 2) & (after % 100 == 0),
        f", where the step led to {obs[0] // 100 * 100 + 3:g}",
    )
    within = np.full(len(obs), (np.abs(actions) <= 0.11).all())
    yield "stores the clipped action", within, ", and no draw is outside the bounds of ±0.1"
    yield "has lost a reward", rewards != 1, ", which pays 1"
    expected = (ended & ~np.full(len(obs), limit), ended & np.full(len(obs), limit))
    one = np.full(len(obs), not limit and dead.any() and (dead == cut).all())
    yield "has one flag for deaths and time limits", ended & one, ", and both flags are set"
    yield "takes a time limit for a death", dead.astype(bool) & np.full(len(obs), limit), ""
    wrong = (dead.astype(bool) != expected[0]) | (cut.astype(bool) != expected[1])
    yield "has its flags at other steps", wrong, ""
    lost = np.append(~ended[:-1] & (after[:-1] != obs[1:]), not ended.any())
    yield "has lost a step", lost, ", and the step after it is not there"


class Probe(gym.Env):
    """A sign that is drawn at the start and seen beside the number of the step; two actions.

    Args:
        reward: of the sign, -1 or 1, the action, 0 or 1, and the number of the step, from 1.
        length: of an episode; 0 for one without an end.
    """

    observation_space = gym.spaces.Box(-9, 9, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, reward: Callable[[int, int, int], float], length: int) -> None:
        self.reward, self.length = reward, length

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Draw a sign."""
        super().reset(seed=seed, options=options)
        self.sign, self.count = int(self.np_random.choice([-1, 1])), 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One step."""
        self.count += 1
        paid = float(self.reward(self.sign, int(action), self.count))
        return self._seen(), paid, self.count == self.length, False, {}

    def _seen(self) -> Array:
        # Without an end every step looks the same.
        return np.array([self.sign, self.count if self.length else 0], dtype=np.float32)


def _limited() -> gym.Env:
    return gym.wrappers.TimeLimit(Probe(lambda *_: 1.0, length=0), 5)


def check_my_trainer(train: Function) -> Passed:
    """Audit a whole trainer on four worlds whose values and best actions are known.

    Args:
        train: ``train(make_env, gamma)``: trains on the environment that ``make_env()`` makes,
            with observations ``[2]`` and two actions, for as long as it takes to learn one so
            small, a few thousand steps, say.  It gives ``(probabilities, value)``, two functions
            of an observation, a numpy array ``[2]`` float32: the probabilities of both actions,
            and the critic's value in units of the rewards.

    Raises:
        BugFound: if what was learned is wrong; with the mistake's name where the number tells it.
    """
    start, gamma = np.array([1, 0], dtype=np.float32), 0.9
    worlds: list[tuple[str, Function, float, dict[float, str]]] = [
        (
            "one step that pays 1",
            lambda: Probe(lambda *_: 1.0, length=1),
            1.0,
            {
                0.0: "has a critic that does not learn",
                10.0: "has learned values that go on after a death",
            },
        ),
        (
            "two steps, of which the second pays 1",
            lambda: Probe(lambda _, __, step: step == 2, length=2),
            gamma,
            {1.0: "does not discount", 0.0: "sees one step ahead only"},
        ),
        (
            "1 a step for ever, cut after five",
            _limited,
            1 / (1 - gamma),
            {
                2.7: "treats a time limit as a death",
                4.1: "treats a time limit as a death",
                1.0: "treats every step as a death",
            },
        ),
    ]
    for world, make_env, right, known in worlds:
        _, value = train(make_env, gamma)
        mine = float(_numbers(value(start)).reshape(-1)[0])
        if not abs(mine - right) < 0.06 * right:
            nearest = min(known, key=lambda x: abs(x - mine))
            name = known[nearest] if abs(nearest - mine) < max(0.2 * nearest, 0.4) else None
            says = name or "has learned another value"
            words = f"of {world} its critic says {mine:.2f}, right {right:.2f}"
            raise BugFound(f"your trainer {says}: {words}", name)
    probabilities, _ = train(lambda: Probe(lambda s, a, _: 1 if s == 2 * a - 1 else -1, 1), gamma)
    for sign in (-1, 1):
        both = _numbers(probabilities(np.array([sign, 0], dtype=np.float32))).reshape(-1)
        if not (both.min() >= 0 and abs(both.sum() - 1) < 1e-3):  # NaN is neither
            raise BugFound(f"your trainer gives {both}, expected two probabilities")
        p = float(both[(sign + 1) // 2])
        if p < 0.85:
            name = "takes the wrong way" if p < 0.3 else "has a policy that does not learn"
            name = "takes the softmax twice" if 0.62 < p < 0.76 else name
            raise BugFound(
                f"your trainer {name}: the action that pays 1, where the other one costs 1, has "
                f"the probability {p:.2f}",
                name,
            )
    return Passed("trainer", 4)
