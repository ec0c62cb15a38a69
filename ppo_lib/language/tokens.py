"""Tokens: what stands between a batch of responses and the functions of a PPO step.

A response is an episode, and the tensors of N responses are time-major as everywhere, ``[T, N]``:
T is the length limit, row t holds token number t of every response, and the prompt is in none
of them.  A response that ends early is followed by padding.  The ``mask`` is True on the tokens
that the policy drew, the end of text included, and False on padding.

What needs no function of its own here is the library's: `ppo_lib.distributions.Categorical` gives
the log-probabilities, `ppo_lib.returns.gae` the advantages, and the losses of
`ppo_lib.objectives` take the tokens that a mask picks, ``log_probs[mask]`` say.
"""

import torch
from torch import Tensor

from ppo_lib.objectives import kl_k1
from ppo_lib.validate import require, same_shape


def response_mask(tokens: Tensor, end: int) -> Tensor:
    """Which tokens the policy drew: all up to the first end of text, which is one of them.

    Args:
        tokens: ``[T, N]``, an integer type; what stands after the first end is padding, of
            whatever value, the end's own included.
        end: the token that ends a text.

    Returns:
        ``[T, N]`` bool, True on the tokens of the response; a response without an end fills
        its column.
    """
    require(
        tokens.ndim == 2 and tokens.numel() > 0,
        f"tokens has shape {tuple(tokens.shape)}, expected [T, N], T and N at least 1",
    )
    require(
        not tokens.is_floating_point() and tokens.dtype != torch.bool,
        f"tokens has dtype {tokens.dtype}, expected an integer type",
    )
    is_end = (tokens == end).long()
    return is_end.cumsum(0) - is_end == 0


def last_token(mask: Tensor) -> Tensor:
    """The last token of each response: the ``terminated`` of `ppo_lib.returns.gae`.

    An end of text and the length limit are both ends of the world here.  The score is given to
    the text as it stands, cut or not, and nothing that the model might have gone on to say
    would ever be scored; a limit that only cut the recording would be ``truncated``.

    Args:
        mask: ``[T, N]`` bool, of `response_mask`.

    Returns:
        ``[T, N]`` bool, True once a column.
    """
    _check_mask(mask)
    return mask & ~torch.cat([mask[1:], torch.zeros_like(mask[:1])])


def next_values(values: Tensor, mask: Tensor) -> Tensor:
    """V(s_{t+1}), the value of the prefix one token longer: the row below, 0 after the end.

    Args:
        values: ``[T, N]``, V(s_t) of the prefix *before* token t.
        mask: ``[T, N]`` bool, of `response_mask`.

    Returns:
        ``[T, N]``, 0 at the last token and on padding.
    """
    same_shape(values=values, mask=mask)
    below = torch.cat([values[1:], torch.zeros_like(values[:1])])
    return below.masked_fill(last_token(mask) | ~mask, 0.0)


def token_rewards(
    scores: Tensor, log_probs: Tensor, ref_log_probs: Tensor, mask: Tensor, *, kl_coef: float
) -> Tensor:
    """r_t = -β log(π(a_t|s_t) / π_ref(a_t|s_t)), and the score at the last token (eq-token-reward).

    Args:
        scores: ``[N]``, r(y), one a response.
        log_probs: ``[T, N]``, log π(a_t | s_t) of the policy that drew the tokens.
        ref_log_probs: ``[T, N]``, log π_ref(a_t | s_t).
        mask: ``[T, N]`` bool, of `response_mask`.
        kl_coef: β, at least 0.

    Returns:
        ``[T, N]`` without gradients, 0 on padding; a column sums to the score less β times the
        logarithm of the ratio of the whole text.
    """
    require(kl_coef >= 0, f"kl_coef is {kl_coef}, expected a number of at least 0")
    same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs, mask=mask)
    require(
        scores.shape == mask.shape[1:],
        f"scores has shape {tuple(scores.shape)}, expected {tuple(mask.shape[1:])}",
    )
    # k1 of the two: the logarithm of π / π_ref where π drew the token.
    penalty = kl_coef * kl_k1(ref_log_probs, log_probs).masked_fill(~mask, 0.0)
    return (scores * last_token(mask) - penalty).detach()


def sequence_sum(x: Tensor, mask: Tensor) -> Tensor:
    """The sum of each response's tokens; of log-probabilities it is log π(y).

    Args:
        x: ``[T, N]``; what stands on padding is ignored, whatever it is.
        mask: ``[T, N]`` bool, of `response_mask`.

    Returns:
        ``[N]``.
    """
    _check_mask(mask)
    same_shape(x=x, mask=mask)
    return x.masked_fill(~mask, 0.0).sum(0)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over all tokens of all responses, padding left out; a scalar."""
    _check_mask(mask)
    same_shape(x=x, mask=mask)
    return x[mask].mean()


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Tokens over their standard deviation, less their mean if ``shift_mean``; padding gets 0.

    Advantages are whitened with their mean taken away.  Rewards, where they are whitened at
    all, keep their mean: taking it away would pay or charge for every further token.

    Args:
        x: ``[T, N]``.
        mask: ``[T, N]`` bool, of `response_mask`.
        shift_mean: whether the mean is taken away.

    Returns:
        ``[T, N]``; of a single token, ``x`` itself.
    """
    _check_mask(mask)
    same_shape(x=x, mask=mask)
    if int(mask.sum()) < 2:
        return x.masked_fill(~mask, 0.0)
    mean = x[mask].mean()
    scaled = (x - mean) / (x[mask].std() + 1e-8)
    return (scaled if shift_mean else scaled + mean).masked_fill(~mask, 0.0)


def _check_mask(mask: Tensor) -> None:
    """Refuse anything but ``[T, N]`` bool whose columns are True first and False after."""
    require(
        mask.ndim == 2 and mask.numel() > 0,
        f"mask has shape {tuple(mask.shape)}, expected [T, N], T and N at least 1",
    )
    require(mask.dtype == torch.bool, f"mask has dtype {mask.dtype}, expected {torch.bool}")
    require(bool(mask[0].all()), "mask is False on a first token, expected at least one a response")
    require(
        not bool((mask[1:] & ~mask[:-1]).any()),
        "mask is True after a False, expected the tokens of a response and then its padding",
    )
