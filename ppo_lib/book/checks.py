"""The two checks of the book: an exact identity, and an estimate held against its exact value.

Each takes the label of the equation that it checks, and raises unless the equation holds *and*
the check can tell it from the wrong formulas that it is given.  The verdict that it prints is
the same on every machine; the page "Every equation, checked" is made from these verdicts.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ppo_lib.validate import require

Number = Tensor | float | Sequence[float] | Sequence[Sequence[float]]

EXACT_TOLERANCE = 1e-12
#: A wrong formula must differ from the right one by this many tolerances to count as rejected.
CLEARLY_WRONG = 1000.0


class CheckFailed(AssertionError):
    """An equation does not hold, or its check cannot tell it from a wrong one."""


def check_exact(
    label: str,
    left: Number,
    right: Number,
    *,
    rejects: Mapping[str, Number],
    tolerance: float = EXACT_TOLERANCE,
) -> None:
    """Check that both sides of an equation are the same numbers.

    Args:
        label: of the equation, ``"eq-b9"`` say.
        left: the left side: a number, nested lists of numbers, or a tensor of float64, any
            integer type or bool.
        right: the right side, computed in another way; the same shape.
        rejects: wrong formulas by name and the numbers they give, of the same shape.  Each must
            differ somewhere by a thousand tolerances, or the check has no power to speak of.
        tolerance: the largest difference allowed, as a share of the largest number on the
            right or of 1, whichever is larger.

    Raises:
        CheckFailed: if the sides differ, a number is not finite, or a wrong formula passes.
        ValueError: if the shapes differ, a float is not float64, or nothing is rejected.
    """
    _check_names(label, rejects)
    require(0 < tolerance < 1, f"tolerance is {tolerance}, expected a number in (0, 1)")
    expected = _float64("right", right)
    require(expected.numel() > 0, "right is empty, expected at least one number")
    bound = tolerance * max(1.0, float(expected.abs().max()))
    gap = _gap(label, "left", _float64("left", left), expected)
    if not gap <= bound:
        raise CheckFailed(f"({label}) the sides differ by {gap:.3g}, allowed is {bound:.1g}")
    for name, value in rejects.items():
        gap = _gap(label, name, _float64(name, value), expected)
        if not gap > CLEARLY_WRONG * bound:
            raise CheckFailed(
                f"({label}) the check does not reject {name!r}: it differs by {gap:.3g} only"
            )
    print(f"✓ {label} · exact to {tolerance:.0e} · rejects: {', '.join(rejects)}")


def check_estimate(
    label: str,
    samples: Tensor,
    exact: Number,
    *,
    rejects: Mapping[str, Number],
    standard_errors: float = 4.0,
) -> None:
    """Check that the mean of independent samples is an estimate of an exact value.

    The distance is measured in the mean's own standard errors, s / √n with the samples' standard
    deviation s, in every component.

    Args:
        label: of the equation, ``"eq-a7"`` say.
        samples: ``[n, …]`` float, n independent samples, at least 100.
        exact: ``[…]``, the exact value, from another computation.
        rejects: wrong values by name, each ``[…]``; each must lie outside the same distance in
            some component.
        standard_errors: the distance allowed.

    Raises:
        CheckFailed: if the mean is too far from the exact value, a number is not finite, or a
            wrong value is not too far.
        ValueError: if the shapes do not fit, there are too few samples, or nothing is rejected.
    """
    _check_names(label, rejects)
    require(samples.ndim >= 1, f"samples has shape {tuple(samples.shape)}, expected [n, …]")
    n = len(samples)
    require(n >= 100, f"samples holds {n} samples, expected at least 100")
    require(samples.numel() > 0, "samples is empty, expected at least one number")
    samples = samples.detach().double()
    mean = samples.mean(dim=0)
    # The last term lets a component that never varies differ by rounding.
    bound = standard_errors * samples.std(dim=0) / n**0.5 + EXACT_TOLERANCE * mean.abs().max()

    def outside(name: str, value: Number) -> float:
        target = _float64(name, value)
        _gap(label, name, target, mean)
        return float(((mean - target).abs() / bound.clamp(min=1e-300)).max()) * standard_errors

    away = outside("exact", exact)
    if not away <= standard_errors:
        raise CheckFailed(
            f"({label}) the mean of {n} samples is {away:.2f} standard errors away from the "
            f"exact value, allowed are {standard_errors:g}"
        )
    for name, value in rejects.items():
        away = outside(name, value)
        if not away > standard_errors:
            raise CheckFailed(
                f"({label}) the check does not reject {name!r}: {n} samples see it only "
                f"{away:.2f} standard errors away"
            )
    print(
        f"✓ {label} · estimate, {n} samples, within {standard_errors:g} standard errors"
        f" · rejects: {', '.join(rejects)}"
    )


def _check_names(label: str, rejects: Mapping[str, Number]) -> None:
    require(label.startswith("eq-"), f"label is {label!r}, expected one that starts with 'eq-'")
    require(len(rejects) > 0, f"rejects is {dict(rejects)}, expected at least one wrong formula")
    for name in rejects:
        require(", " not in name, f"rejects names {name!r}, expected a name without a comma")


def _float64(name: str, value: Number) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.as_tensor(value, dtype=torch.float64)
    require(
        not value.is_floating_point() or value.dtype == torch.float64,
        f"{name} has dtype {value.dtype}, expected float64",
    )
    return value.detach().double()


def _gap(label: str, name: str, left: Tensor, right: Tensor) -> float:
    """The largest difference; refuses other shapes and numbers not finite."""
    require(
        left.shape == right.shape,
        f"{name} has shape {tuple(left.shape)}, expected {tuple(right.shape)}",
    )
    if not bool(left.isfinite().all() and right.isfinite().all()):
        raise CheckFailed(f"({label}) {name} or what it is held against holds a number not finite")
    return float((left - right).abs().max())
