"""The two checks of the book: an exact identity, and an estimate held against its exact value.

Each takes the label of the equation that it checks, and raises unless the equation holds *and*
the check can tell it from the wrong formulas that it is given.  The verdict that it prints is
the same on every machine; the page "The source, and every equation checked" is made from them.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor

from ppo_lib.validate import require

Number = Tensor | float | Sequence[float] | Sequence[Sequence[float]]

EXACT_TOLERANCE = 1e-12
#: A wrong formula must differ from the right one by this many tolerances to count as rejected.
CLEARLY_WRONG = 1000.0


class CheckFailed(AssertionError):
    """An equation does not hold, or its check cannot tell it from a wrong one."""


@dataclass(frozen=True)
class Verdict:
    """What a check has found: a line in a terminal, a badge that opens in a notebook."""

    label: str
    held: str  #: how it holds, and what was told from it
    rows: tuple[tuple[str, str], ...]  #: both sides, and each wrong formula with how far it misses

    def __repr__(self) -> str:
        return f"✓ {self.label} · {self.held}"

    def _repr_html_(self) -> str:
        link = f'<a href="#equation-{self.label}">{self.label}</a>'
        rows = (f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in self.rows)
        return (
            f'<details class="verdict"><summary>✓ {link} · {escape(self.held)}</summary>'
            f"<table>{''.join(rows)}</table></details>"
        )

    def show(self) -> None:
        """Display it, or print it where no notebook is."""
        kernel = sys.modules.get("IPython")
        if kernel is not None and kernel.get_ipython() is not None:
            kernel.display.display(self)
        else:
            print(self)


def in_words(numbers: Tensor) -> str:
    """One number, or the range of several; the same text on every machine."""
    low, high = _rounded(float(numbers.min())), _rounded(float(numbers.max()))
    if low != high:
        return f"{numbers.numel()} numbers from {low} to {high}"
    return low if numbers.numel() == 1 else f"{numbers.numel()} times {low}"


def misses(gap: float) -> str:
    """How far a wrong formula is off, in words."""
    return f"off by {_rounded(gap)}"


def _rounded(x: float) -> str:
    # What lies half-way is moved off it, so that a last bit can't change a digit.
    return "0" if abs(x) < 1e-9 else f"{x * (1 + 1e-7):.4g}"


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
    found, expected = _float64("left", left), _float64("right", right)
    require(expected.numel() > 0, "right is empty, expected at least one number")
    bound = tolerance * max(1.0, float(expected.abs().max()))
    gap = _gap(label, "left", found, expected)
    if not gap <= bound:
        raise CheckFailed(f"({label}) the sides differ by {gap:.3g}, allowed is {bound:.1g}")
    rows = [("left side", in_words(found)), ("right side", in_words(expected))]
    for name, value in rejects.items():
        gap = _gap(label, name, _float64(name, value), expected)
        rows.append((name, misses(gap)))
        if not gap > CLEARLY_WRONG * bound:
            raise CheckFailed(
                f"({label}) the check does not reject {name!r}: it differs by {gap:.3g} only"
            )
    held = f"exact to {tolerance:.0e} · rejects: {', '.join(rejects)}"
    Verdict(label, held, tuple(rows)).show()


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
    target = _float64("exact", exact)
    rows = [("exact value", in_words(target))]
    for name, value in rejects.items():
        rows.append((name, misses(_gap(label, name, _float64(name, value), target))))
        away = outside(name, value)
        if not away > standard_errors:
            raise CheckFailed(
                f"({label}) the check does not reject {name!r}: {n} samples see it only "
                f"{away:.2f} standard errors away"
            )
    held = (
        f"estimate, {n} samples, within {standard_errors:g} standard errors"
        f" · rejects: {', '.join(rejects)}"
    )
    Verdict(label, held, tuple(rows)).show()


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
