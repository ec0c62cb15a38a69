"""From a grammar to a tuned model: pretraining, a reward model from preferences, and PPO.

Every part is a function of what it is made of: the reference learns from reviews, the reward
model from pairs that the reference wrote and a judge compared, the policy from the reward model.
The rewards, masks, advantages and losses are those of the rooms before this one.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils import clip_grad_norm_

from ppo_lib.language import reviews
from ppo_lib.language.tokens import (
    last_token,
    masked_mean,
    next_values,
    response_mask,
    sequence_sum,
    token_rewards,
    whiten,
)
from ppo_lib.language.transformer import LanguageModel, generate, read, scores
from ppo_lib.objectives import (
    clipped_surrogate_loss,
    effective_sample_size,
    kl_k1,
    value_loss,
)
from ppo_lib.returns import gae
from ppo_lib.validate import require, same_shape

Judge = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def pretrain(
    seed: int, *, steps: int = 300, batch: int = 32, learning_rate: float = 4e-3
) -> LanguageModel:
    """A language model of the reviews: the most probable next token of each (eq-next-token).

    Args:
        seed: of the weights and of the reviews.
        steps: of Adam, at least 1.
        batch: reviews of a step, each seen once.
        learning_rate: goes up in the first 20 steps, and then down to 0.
    """
    require(steps >= 1, f"steps is {steps}, expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    model = LanguageModel(len(reviews.WORDS), reviews.LIMIT + 1, generator)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95))
    prompts, tokens = reviews.write(steps * batch, seed)
    for step, here in enumerate(torch.arange(steps * batch).split(batch)):
        _set_rate(optimizer, learning_rate, step, steps)
        log_probs, _, _ = read(model, prompts[here], tokens[:, here])
        loss = -masked_mean(log_probs, response_mask(tokens[:, here], reviews.END))
        _step(optimizer, loss)
    return model


def sample(model: LanguageModel, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n responses, half of them to each prompt; ``[N]`` prompts and ``[T, N]`` tokens."""
    require(n >= 1, f"n is {n}, expected at least 1")
    prompts = torch.tensor(reviews.PROMPTS).repeat(n)[:n]
    return prompts, generate(model, prompts, reviews.LIMIT, reviews.END, generator)


class Pairs(NamedTuple):
    """Comparisons of two responses to one prompt.

    Attributes:
        prompts: ``[n]`` int64.
        preferred: ``[T, n]`` int64.
        other: ``[T, n]`` int64.
    """

    prompts: Tensor
    preferred: Tensor
    other: Tensor


def preferences(
    model: LanguageModel, n: int, generator: torch.Generator, *, judge: Judge = reviews.judge
) -> Pairs:
    """n pairs that a model wrote; a judge prefers y to y' with σ(r(y) - r(y')) (eq-bradley-terry).

    Args:
        model: who writes.
        n: the number of pairs, at least 1.
        generator: where the random numbers come from.
        judge: gives r(y), and whatever else.
    """
    prompts, first = sample(model, n, generator)
    _, second = sample(model, n, generator)
    agrees = (judge(prompts, first)[0] - judge(prompts, second)[0]).sigmoid()
    keep = torch.rand(n, generator=generator) < agrees
    return Pairs(prompts, first.where(keep, second), second.where(keep, first))


def preference_loss(preferred: Tensor, other: Tensor) -> Tensor:
    """-mean log σ(r̂(y) - r̂(y')) (eq-preference-loss), y the preferred one; ``[n]`` both."""
    return -logsigmoid(preferred - other).mean()


def fit_reward_model(
    model: LanguageModel,
    pairs: Pairs,
    generator: torch.Generator,
    *,
    epochs: int = 4,
    batch: int = 64,
    learning_rate: float = 3e-3,
) -> LanguageModel:
    """A copy of a model whose number at the last token explains the preferences.

    Its bias is set so that the mean over the texts of the pairs is 0: a difference does not see it.

    Args:
        model: where the copy starts; it is left as it is.
        pairs: of `preferences`.
        generator: shuffles the pairs.
        epochs: passes over the pairs.
        batch: pairs of a step.
        learning_rate: goes up in the first 20 steps, and then down to 0.
    """
    fitted = deepcopy(model).requires_grad_(True)
    optimizer = torch.optim.Adam(fitted.parameters(), betas=(0.9, 0.95))
    n = len(pairs.prompts)
    order = [
        here for _ in range(epochs) for here in torch.randperm(n, generator=generator).split(batch)
    ]
    for step, here in enumerate(order):
        _set_rate(optimizer, learning_rate, step, len(order))
        both = torch.cat([pairs.preferred[:, here], pairs.other[:, here]], dim=1)
        preferred, other = reward(fitted, pairs.prompts[here].repeat(2), both).chunk(2)
        _step(optimizer, preference_loss(preferred, other))
    with torch.no_grad():
        seen = [reward(fitted, pairs.prompts, texts).mean() for texts in pairs[1:]]
        fitted.value.bias -= sum(seen) / 2
    return fitted.requires_grad_(False)


def reward(model: LanguageModel, prompts: Tensor, tokens: Tensor) -> Tensor:
    """r̂(y) of a reward model, ``[N]``, read at the last token of each response."""
    return scores(model, prompts, tokens, last_token(response_mask(tokens, reviews.END)))


class Batch(NamedTuple):
    """What PPO learns from: N responses, and what four models say of their tokens.

    Attributes:
        prompts: ``[N]`` int64.
        tokens: ``[T, N]`` int64.
        mask: ``[T, N]`` bool, of the tokens that were drawn.
        scores: ``[N]``, r̂(y).
        log_probs: ``[T, N]``, log π_θ'(a_t | s_t).
        ref_log_probs: ``[T, N]``, log π_ref(a_t | s_t).
        rewards: ``[T, N]``, with the price of KL (eq-token-reward).
        values: ``[T, N]``, V(s_t).
        advantages: ``[T, N]``, whitened over the tokens.
        returns: ``[T, N]``.
    """

    prompts: Tensor
    tokens: Tensor
    mask: Tensor
    scores: Tensor
    log_probs: Tensor
    ref_log_probs: Tensor
    rewards: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


@torch.no_grad()
def draw(
    policy: LanguageModel,
    reference: LanguageModel,
    reward_model: LanguageModel,
    n: int,
    generator: torch.Generator,
    *,
    kl_coef: float,
    gae_lambda: float = 0.95,
) -> Batch:
    """Write n responses and make of them what an update learns from; γ is 1.

    Args:
        policy: writes, and its values are the critic.
        reference: π_ref.
        reward_model: r̂, of `fit_reward_model`.
        n: N, at least 1.
        generator: where the random numbers come from.
        kl_coef: β, at least 0.
        gae_lambda: λ, in [0, 1].
    """
    prompts, tokens = sample(policy, n, generator)
    mask = response_mask(tokens, reviews.END)
    log_probs, values, _ = read(policy, prompts, tokens)
    ref_log_probs, _, _ = read(reference, prompts, tokens)
    score = reward(reward_model, prompts, tokens)
    rewards = token_rewards(score, log_probs, ref_log_probs, mask, kl_coef=kl_coef)
    ends = last_token(mask)
    advantages, returns = gae(
        rewards,
        values,
        next_values(values, mask),
        ends,
        torch.zeros_like(ends),
        gamma=1.0,
        gae_lambda=gae_lambda,
    )
    return Batch(
        prompts,
        tokens,
        mask,
        score,
        log_probs,
        ref_log_probs,
        rewards,
        values,
        whiten(advantages, mask),
        returns,
    )


def update(
    policy: LanguageModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    generator: torch.Generator,
    *,
    epochs: int = 2,
    minibatches: int = 2,
    clip_range: float = 0.2,
    value_coef: float = 0.1,
) -> float:
    """Descend the clipped surrogate and the critic's loss on one batch.

    Args:
        policy: is changed.
        optimizer: of the policy's parameters.
        batch: of `draw`.
        generator: shuffles the responses.
        epochs: passes over the batch.
        minibatches: steps of a pass.
        clip_range: ε.
        value_coef: what the critic's loss counts; the two share all layers.

    Returns:
        The mean over all steps of the share of tokens whose ratio the clip cuts.
    """
    n = len(batch.prompts)
    require(1 <= minibatches <= n, f"minibatches is {minibatches}, expected 1 to {n}")
    cut = []
    for _ in range(epochs):
        for here in torch.randperm(n, generator=generator).tensor_split(minibatches):
            mask = batch.mask[:, here]
            old, advantages, returns = (
                x[:, here][mask] for x in (batch.log_probs, batch.advantages, batch.returns)
            )
            log_probs, values, _ = read(policy, batch.prompts[here], batch.tokens[:, here])
            log_probs, values = log_probs[mask], values[mask]
            loss = clipped_surrogate_loss(log_probs, old, advantages, clip_range=clip_range)
            _step(optimizer, loss + value_coef * value_loss(values, returns))
            cut.append(((log_probs - old).exp() - 1).abs().gt(clip_range).float().mean().item())
    return sum(cut) / len(cut)


def tune(
    policy: LanguageModel,
    reference: LanguageModel,
    reward_model: LanguageModel,
    generator: torch.Generator,
    *,
    kl_coef: float,
    updates: int = 60,
    responses: int = 128,
    learning_rate: float = 1e-3,
) -> Iterator[Batch]:
    """PPO: draw, show the batch, update, and again; the policy is changed as one iterates.

    Args:
        policy: a copy of the reference, to begin with.
        reference: π_ref, which stays.
        reward_model: r̂.
        generator: where all random numbers come from.
        kl_coef: β, at least 0.
        updates: batches drawn and learned from.
        responses: N, of a batch.
        learning_rate: of Adam.
    """
    optimizer = torch.optim.Adam(policy.parameters(), learning_rate)
    for _ in range(updates):
        batch = draw(policy, reference, reward_model, responses, generator, kl_coef=kl_coef)
        yield batch
        update(policy, optimizer, batch, generator)


def measure(batch: Batch) -> dict[str, float]:
    """Means over the responses: r̂ (``score``), ``gold``, share of reviews, and KL(π ‖ π_ref)."""
    gold, grammatical = reviews.judge(batch.prompts, batch.tokens)
    log_ratio = sequence_sum(kl_k1(batch.ref_log_probs, batch.log_probs), batch.mask)
    return {
        "score": batch.scores.mean().item(),
        "gold": gold.mean().item(),
        "grammatical": grammatical.float().mean().item(),
        "kl": log_ratio.mean().item(),
    }


class Estimate(NamedTuple):
    """β log of a mean of weights: the value, its standard error, and what the sample is worth."""

    value: float
    standard_error: float
    effective_samples: float


def optimum_value(
    scores: Tensor, log_ratio: Tensor, prompts: Tensor | None = None, *, kl_coef: float
) -> Estimate:
    """J* = β log E_π[π_ref(y)/π(y) exp(r(y)/β)] from samples of any π (eq-optimum-sample).

    The mean of the weights has no bias; its logarithm is below log Z on average, by Jensen.
    The standard error, by the delta method, means something only where many samples count.

    Args:
        scores: ``[n]``, r(y) of texts that π drew.
        log_ratio: ``[n]``, log π(y) - log π_ref(y); zeros if the reference drew them.
        prompts: ``[n]``, the prompt of each text, if there are several: each has a Z of its own,
            and J* is the mean over the prompts, which count alike.
        kl_coef: β, above 0.
    """
    if prompts is not None:
        same_shape(scores=scores, prompts=prompts)
        parts = [prompts == prompt for prompt in prompts.unique()]
        found = [optimum_value(scores[p], log_ratio[p], kl_coef=kl_coef) for p in parts]
        values, errors, sizes = (torch.tensor(x).double() for x in zip(*found, strict=True))
        error = (errors**2).sum().sqrt().item() / len(found)
        return Estimate(values.mean().item(), error, sizes.sum().item())
    require(kl_coef > 0, f"kl_coef is {kl_coef}, expected a number above 0")
    same_shape(scores=scores, log_ratio=log_ratio)
    log_weights = scores.double() / kl_coef - log_ratio.double()
    largest = log_weights.max()
    weights = (log_weights - largest).exp()
    error = weights.std() / weights.mean() / len(weights) ** 0.5
    return Estimate(
        kl_coef * (weights.mean().log() + largest).item(),
        kl_coef * error.item(),
        effective_sample_size(weights),
    )


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Up in the first 20 steps, then down to 0."""
    optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 20) * (1 - step / steps)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
