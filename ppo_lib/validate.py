"""Refusals: every wrong argument is named, with its value and what would be right."""

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def in_unit_interval(name: str, value: float) -> None:
    """Refuse a number outside [0, 1], NaN included."""
    require(0.0 <= value <= 1.0, f"{name} is {value}, expected a number in [0, 1]")


def same_shape(**tensors: Tensor) -> None:
    """Refuse what is no tensor, or of another shape than the first: nothing is ever broadcast."""
    first, reference = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}, expected a torch tensor")
        # Not `require`: its message would be written, at every gradient step, to be thrown away.
        if tensor.shape != reference.shape:
            found, expected = tuple(tensor.shape), tuple(reference.shape)
            raise ValueError(f"{name} has shape {found}, expected {expected} as {first} has")


def not_empty(name: str, tensor: Tensor) -> None:
    """Refuse a tensor without a number: its mean is NaN."""
    if tensor.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected at least one number")


def check_finite(name: str, array: np.ndarray) -> None:
    """Refuse NaN and infinity."""
    # Not `require`: its message would be written, at every step, to be thrown away.
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is {array}, expected finite numbers")


def check_params(params: Tensor) -> None:
    """Refuse NaN and ∞ in the parameters of a distribution; the logit of a masked action is -∞."""
    if bool((params.isnan() | params.isposinf()).any()):
        raise ValueError(f"dist_params is {params}, expected finite numbers")


def asks_to_stop(answer: Any) -> bool:
    """Whether a callback has returned True; what is neither a truth value nor None is refused."""
    require(
        answer is None
        or isinstance(answer, bool | np.bool_)
        or getattr(answer, "dtype", 0) == torch.bool,
        f"a callback returned {answer!r}, expected True, False or None",
    )
    return bool(answer)


def optional(module: str, extra: str) -> Any:
    """Import a module that only an extra of this package installs, and say so where it is not."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{error}: run pip install 'ppo_lib[{extra}]'") from error
