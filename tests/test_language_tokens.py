"""Tokens and their masks, against literals worked by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from ppo_lib.language.tokens import (
    last_token,
    masked_mean,
    next_values,
    response_mask,
    sequence_sum,
    token_rewards,
    whiten,
)
from ppo_lib.returns import gae

END = 9
#: Three responses of at most four tokens: one that ends at once, one that ends in the middle and
#: is padded with the end itself, and one that the limit cuts.
TOKENS = torch.tensor([[9, 1, 1], [0, 2, 2], [0, 9, 3], [9, 9, 4]])
MASK = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 0, 1]]).bool()


def test_the_first_end_is_the_last_token_of_the_response() -> None:
    assert_close(response_mask(TOKENS, END), MASK)
    assert response_mask(torch.tensor([[3]]), END).tolist() == [[True]]


def test_both_ends_terminate_once_a_response() -> None:
    expected = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]).bool()
    assert_close(last_token(MASK), expected)


def test_the_next_value_is_the_row_below_and_zero_after_the_end() -> None:
    values = torch.arange(1.0, 13.0).reshape(4, 3)
    expected = torch.tensor([[0.0, 5, 6], [0, 8, 9], [0, 0, 12], [0, 0, 0]])
    assert_close(next_values(values, MASK), expected)


def test_the_reward_is_the_penalty_and_the_score_at_the_last_token() -> None:
    log_probs = torch.full((4, 3), math.log(0.5))
    ref = torch.full((4, 3), math.log(0.25))
    ref[1:, 0] = float("-inf")  # padding may hold anything
    scores = torch.tensor([1.0, 2.0, 3.0])
    p = 0.1 * math.log(2)
    expected = torch.tensor([[1 - p, -p, -p], [0, -p, -p], [0, 2 - p, -p], [0, 0, 3 - p]])
    found = token_rewards(scores, log_probs.requires_grad_(), ref, MASK, kl_coef=0.1)
    assert_close(found, expected)
    assert not found.requires_grad


def test_with_gae_the_advantage_is_what_follows_less_the_value() -> None:
    rewards = torch.tensor([[1.0, 2, 3], [0, 4, 5], [0, 6, 7], [0, 0, 8]])
    values = torch.tensor([[0.5, 0.5, 0.5], [7, 1, 1], [7, 2, 2], [7, 7, 3]])
    ends = last_token(MASK)
    advantages, _ = gae(
        rewards,
        values,
        next_values(values, MASK),
        ends,
        torch.zeros_like(ends),
        gamma=1,
        gae_lambda=1,
    )
    expected = torch.tensor([0.5, 11.5, 22.5, 9, 19, 4, 13, 5])
    assert_close(advantages[MASK], expected)


def test_sums_and_means_leave_padding_out() -> None:
    x = torch.arange(12.0).reshape(4, 3)
    x[1:, 0] = float("nan")
    assert_close(sequence_sum(x, MASK), torch.tensor([0.0, 12.0, 26.0]))
    assert_close(masked_mean(x, MASK), torch.tensor(38 / 8))


def test_whitening_is_over_tokens_and_can_keep_the_mean() -> None:
    x = torch.tensor([[1.0, 3.0], [99.0, 5.0]])
    mask = torch.tensor([[True, True], [False, True]])
    assert_close(whiten(x, mask), torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))
    assert_close(whiten(x, mask, shift_mean=False), torch.tensor([[2.0, 3.0], [0.0, 4.0]]))
    two, half = torch.tensor([[1.0], [3.0]]), 0.5**0.5
    assert_close(whiten(two, torch.ones(2, 1).bool()), torch.tensor([[-half], [half]]))
    one = torch.tensor([[True]])
    assert_close(whiten(torch.tensor([[3.0]]), one), torch.tensor([[3.0]]))
    alone = whiten(torch.tensor([[3.0], [9.0]]), torch.tensor([[True], [False]]))
    assert_close(alone, torch.tensor([[3.0], [0.0]]))
    # Their standard deviation is 1e-8, and as much is added to it.
    close = torch.tensor([[0.0], [2**0.5 * 1e-8]], dtype=torch.float64)
    expected = torch.tensor([[-half / 2], [half / 2]], dtype=torch.float64)
    assert_close(whiten(close, torch.ones(2, 1).bool()), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: response_mask(TOKENS[0], END), r"tokens has shape \(3,\)"),
        (lambda: response_mask(TOKENS.float(), END), "tokens has dtype torch.float32"),
        (lambda: last_token(MASK.long()), "mask has dtype torch.int64"),
        (lambda: last_token(~MASK), "mask is False on a first token"),
        (lambda: last_token(torch.tensor([[True, False]])), "mask is False on a first token"),
        (lambda: last_token(torch.tensor([[True], [False], [True]])), "mask is True after"),
        (lambda: next_values(torch.zeros(4, 2), MASK), r"mask has shape \(4, 3\)"),
        (lambda: sequence_sum(torch.zeros(4, 1), MASK), r"mask has shape \(4, 3\)"),
        (lambda: masked_mean(torch.zeros(4, 3, 1), MASK), r"mask has shape \(4, 3\)"),
        (lambda: whiten(torch.zeros(1, 3), MASK), r"mask has shape \(4, 3\)"),
        (
            lambda: response_mask(torch.zeros(0, 3, dtype=torch.int64), END),
            r"tokens has shape \(0, 3\)",
        ),
        (lambda: response_mask(MASK, END), "tokens has dtype torch.bool"),
        (lambda: last_token(MASK[:0]), r"mask has shape \(0, 3\)"),
        (lambda: last_token(MASK[0]), r"mask has shape \(3,\)"),
        (lambda: next_values(torch.zeros(4, 3), MASK.long()), "mask has dtype torch.int64"),
        (lambda: sequence_sum(torch.zeros(4, 3), MASK.long()), "mask has dtype torch.int64"),
        (lambda: masked_mean(torch.zeros(4, 3), MASK.long()), "mask has dtype torch.int64"),
        (lambda: whiten(torch.zeros(4, 3), MASK.long()), "mask has dtype torch.int64"),
        (
            lambda: token_rewards(
                torch.zeros(4), torch.zeros(4, 3), torch.zeros(4, 3), MASK, kl_coef=0.1
            ),
            r"scores has shape \(4,\), expected \(3,\)",
        ),
        (
            lambda: token_rewards(
                torch.zeros(3), torch.zeros(4, 3), torch.zeros(4, 3), MASK, kl_coef=-1
            ),
            "kl_coef is -1",
        ),
        (
            lambda: token_rewards(
                torch.zeros(3), torch.zeros(1, 3), torch.zeros(1, 3), MASK, kl_coef=0.1
            ),
            r"mask has shape \(4, 3\), expected \(1, 3\) as log_probs has",
        ),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
