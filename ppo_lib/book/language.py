"""PPO in the world of language that can be listed, and the mistakes that people make there.

The update is made of the library's own parts and stands in `train` as one reads it.  A mistake
is planted by its name, at the line that it changes.
"""

import torch
from torch import Tensor

from ppo_lib.language import world
from ppo_lib.language.tokens import last_token, next_values, sequence_sum, token_rewards
from ppo_lib.objectives import clipped_surrogate_loss, kl_k3, surrogate_loss, value_loss
from ppo_lib.returns import gae
from ppo_lib.validate import require

MISTAKES = (
    "score after the end",
    "score on every token",
    "end masked as padding",
    "KL on padding",
    "sampled at temperature 0.7",
    "k3 in the reward",
    "values shifted by one",
    "critic trained on rewards",
    "rewards as advantages",
)


def train(
    rewards: Tensor,
    reference: Tensor,
    *,
    kl_coef: float,
    seed: int,
    start_coef: float = 1.0,
    updates: int = 200,
    responses: int = 1024,
    epochs: int = 4,
    learning_rate: float = 0.2,
    clip_range: float | None = 0.2,
    gamma: float = 1.0,
    gae_lambda: float = 1.0,
    mistake: str = "",
) -> Tensor:
    """Train a table of logits from the reference on, with PPO and KL in the reward.

    Args:
        rewards: ``[TEXTS]``, r(y).
        reference: ``[S, A]``, the logits of π_ref.
        kl_coef: β, above 0.
        seed: of the texts that are drawn.
        start_coef: where β begins, if that is above ``kl_coef``: in the first half of the updates
            it goes down to ``kl_coef``, by the same factor each time, and then it stays.
        updates: batches drawn and learned from.
        responses: N, the texts of a batch.
        epochs: gradient steps on a batch, each on all of it.
        learning_rate: of the policy; it goes down to 0 as the root of the updates left.
        clip_range: ε, or None for the surrogate without a clip.
        gamma: γ.
        gae_lambda: λ.
        mistake: one of `MISTAKES`, or nothing.

    Returns:
        ``[S, A]``, the logits after the last update.
    """
    require(kl_coef > 0, f"kl_coef is {kl_coef}, expected a number above 0")
    require(
        mistake in ("", *MISTAKES), f"mistake is {mistake!r}, expected one of {', '.join(MISTAKES)}"
    )
    generator = torch.Generator().manual_seed(seed)
    logits = reference.clone().requires_grad_()
    critic = torch.zeros(world.PREFIXES, dtype=reference.dtype, requires_grad=True)
    # At π* every text has the same reward with its KL, so that advantages, and their noise, go to
    # 0 there.  An eps this large lets the steps go to 0 with them; 1e-8 would scale the noise up.
    # Near π* an advantage is β times a number of nats, and so is eps.  A prefix that has become
    # rare must still be learned from, so Adam's memory is a short one.
    actor_steps = torch.optim.Adam([logits], learning_rate, betas=(0.9, 0.99), eps=5e-4 * kl_coef)
    critic_steps = torch.optim.Adam([critic], 0.1)
    for update in range(updates):
        actor_steps.param_groups[0]["lr"] = learning_rate * (1 - update / updates) ** 0.5
        price = kl_coef * max(1.0, start_coef / kl_coef) ** max(0.0, 1 - 2 * update / updates)
        temperature = 0.7 if mistake == "sampled at temperature 0.7" else 1.0
        drawn = world.sample(logits / temperature, responses, generator)
        mask, ends = drawn.mask, last_token(drawn.mask)
        with torch.no_grad():
            old = world.token_log_probs(logits, drawn)
            ref = world.token_log_probs(reference, drawn)
            r = token_rewards(rewards[drawn.texts], old, ref, mask, kl_coef=price)
            r = _planted_rewards(mistake, r, rewards[drawn.texts], old, ref, mask, price)
            values = critic[drawn.prefixes]
            later = next_values(values, mask)
            if mistake == "values shifted by one":
                values, later = later, next_values(later, mask)
            advantages, returns = gae(
                r, values, later, ends, torch.zeros_like(ends), gamma=gamma, gae_lambda=gae_lambda
            )
        if mistake == "rewards as advantages":
            advantages = r - values
        if mistake in ("critic trained on rewards", "rewards as advantages"):
            returns = r
        if mistake == "end masked as padding":
            mask = mask & (drawn.tokens != world.END)
        everything = (drawn.prefixes, drawn.tokens, old, advantages, returns)
        s, a, old, advantages, returns = (x[mask] for x in everything)
        for _ in range(epochs):
            log_probs = logits.log_softmax(-1)[s, a]
            if clip_range is None:
                loss = surrogate_loss(log_probs, old, advantages)
            else:
                loss = clipped_surrogate_loss(log_probs, old, advantages, clip_range=clip_range)
            loss = loss + value_loss(critic[s], returns)
            for steps in (actor_steps, critic_steps):
                steps.zero_grad()
            loss.backward()
            for steps in (actor_steps, critic_steps):
                steps.step()
    return logits.detach()


def _planted_rewards(
    mistake: str,
    right: Tensor,
    scores: Tensor,
    log_probs: Tensor,
    ref_log_probs: Tensor,
    mask: Tensor,
    kl_coef: float,
) -> Tensor:
    """The rewards of a batch with a mistake in them, if it is one of the rewards."""
    ends, price = last_token(mask), kl_coef * (log_probs - ref_log_probs)
    if mistake == "score after the end":
        after = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])
        # A text that fills its column has no row after its end, and keeps its score.
        after = after | (ends & mask[-1:])
        return after * scores - price.masked_fill(~mask, 0.0)
    if mistake == "score on every token":
        return (scores - price).masked_fill(~mask, 0.0)
    if mistake == "KL on padding":
        everywhere = torch.ones_like(mask)
        return ends * (scores - sequence_sum(price, everywhere))
    if mistake == "k3 in the reward":
        # The policy drew the tokens, so it is the second argument; the ratio is π_ref / π.
        penalty = kl_coef * kl_k3(ref_log_probs, log_probs).masked_fill(~mask, 0.0)
        return ends * scores - penalty
    return right
