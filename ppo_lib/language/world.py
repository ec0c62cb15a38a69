"""A world of language that can be listed: 4 words and an end, at most 5 tokens, 1,365 texts.

A prefix is a state, the next token an action, and a policy a table of logits ``[S, A]``: a row
for each of the S = 341 prefixes of at most 4 words, a column for each of the A = 5 tokens.
Prefixes are numbered level by level: number 0 is the empty one, and word w after prefix s gives
prefix 4 s + 1 + w.  A text is numbered by its words: number i is prefix i and the end for i < 341,
and the five words of prefix i, cut by the limit, from there on.

`EVERY` is the list of all texts as a batch of responses: what a function computes from a sample,
it computes from `EVERY` and the texts' probabilities exactly.  All numbers are float64.
"""

from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ppo_lib.distributions import Categorical
from ppo_lib.language.tokens import response_mask, sequence_sum
from ppo_lib.validate import require

WORDS = ("very", "not", "good", "bad")
END = len(WORDS)
LIMIT = 5
PREFIXES = sum(END**t for t in range(LIMIT))
TEXTS = PREFIXES + END**LIMIT


class Responses(NamedTuple):
    """N texts, token by token.

    Attributes:
        prefixes: ``[T, N]`` int64, the state s_t before each token; 0 on padding.
        tokens: ``[T, N]`` int64, a_t; `END` on padding.
        mask: ``[T, N]`` bool, False on padding.
        texts: ``[N]`` int64, the numbers of the texts.
    """

    prefixes: Tensor
    tokens: Tensor
    mask: Tensor
    texts: Tensor


def words_of(text: int) -> tuple[int, ...]:
    """The words of a text, or of the prefix of the same number, without the end."""
    words: list[int] = []
    while text > 0:
        text, word = divmod(text - 1, END)
        words.append(word)
    return tuple(reversed(words))


def say(text: int) -> str:
    """A text as one reads it: its words and a full stop, or … where the limit cut it."""
    words = " ".join(WORDS[word] for word in words_of(text))
    return words + ("…" if text >= PREFIXES else ".")


def sample(logits: Tensor, n: int, generator: torch.Generator) -> Responses:
    """Draw n texts word by word.

    Args:
        logits: ``[S, A]`` of the policy.
        n: N, at least 1.
        generator: where the random numbers come from.
    """
    _check("logits", logits, (PREFIXES, END + 1))
    require(n >= 1, f"n is {n}, expected at least 1")
    here, going = torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.bool)
    prefixes, tokens = [], []
    for _ in range(LIMIT):
        prefixes.append(here.where(going, 0))
        drawn = Categorical.sample(logits.detach()[prefixes[-1]], generator)
        tokens.append(drawn.where(going, END))
        going = going & (tokens[-1] != END)
        here = (END * here + 1 + tokens[-1]).where(going, here)
    found = torch.stack(tokens)
    return Responses(torch.stack(prefixes), found, response_mask(found, END), here)


def _list_texts() -> Responses:
    tokens = torch.full((LIMIT, TEXTS), END)
    prefixes = torch.zeros((LIMIT, TEXTS), dtype=torch.int64)
    for text in range(TEXTS):
        prefix = 0
        for t, word in enumerate(words_of(text)):
            prefixes[t, text], tokens[t, text] = prefix, word
            prefix = END * prefix + 1 + word
        if text < PREFIXES:
            prefixes[len(words_of(text)), text] = prefix
    return Responses(prefixes, tokens, response_mask(tokens, END), torch.arange(TEXTS))


EVERY = _list_texts()


def token_log_probs(logits: Tensor, responses: Responses = EVERY) -> Tensor:
    """log π(a_t | s_t), ``[T, N]``, differentiable in the logits; on padding it is that of s_0."""
    _check("logits", logits, (PREFIXES, END + 1))
    return logits.log_softmax(-1)[responses.prefixes, responses.tokens]


def text_log_probs(logits: Tensor, responses: Responses = EVERY) -> Tensor:
    """log π(y) = Σ_t log π(a_t | s_t) (eq-text-prob), ``[N]``, differentiable in the logits."""
    return sequence_sum(token_log_probs(logits, responses), responses.mask)


def kl(logits: Tensor, other: Tensor) -> Tensor:
    """KL(π ‖ π_other) over all texts in nats, a scalar, differentiable in both."""
    log_probs = text_log_probs(logits)
    return (log_probs.exp() * (log_probs - text_log_probs(other))).sum()


def kl_objective(logits: Tensor, reference: Tensor, rewards: Tensor, *, kl_coef: float) -> Tensor:
    """J_β(π) = Σ_y π(y) [r(y) - β log(π(y) / π_ref(y))] (eq-kl-goal), a scalar.

    Args:
        logits: ``[S, A]`` of π; gradients flow through them.
        reference: ``[S, A]`` of π_ref.
        rewards: ``[TEXTS]``, r(y).
        kl_coef: β, at least 0.
    """
    require(kl_coef >= 0, f"kl_coef is {kl_coef}, expected a number of at least 0")
    _check("rewards", rewards, (TEXTS,))
    log_probs = text_log_probs(logits)
    ratio = log_probs - text_log_probs(reference)
    return (log_probs.exp() * (rewards - kl_coef * ratio)).sum()


def optimum(reference: Tensor, rewards: Tensor, *, kl_coef: float) -> tuple[Tensor, Tensor]:
    """π*(y) = π_ref(y) exp(r(y) / β) / Z (eq-kl-optimum), as a table, and J* = β log Z.

    Computed from the ends backwards: log Z(s) = log Σ_a π_ref(a | s) Z(s, a).

    Args:
        reference: ``[S, A]``, the logits of π_ref.
        rewards: ``[TEXTS]``, r(y).
        kl_coef: β, above 0.

    Returns:
        ``(logits, value)``: ``[S, A]``, normalised, and a scalar.
    """
    require(kl_coef > 0, f"kl_coef is {kl_coef}, expected a number above 0")
    _check("rewards", rewards, (TEXTS,))
    _check("reference", reference, (PREFIXES, END + 1))
    ref = reference.log_softmax(-1)
    log_z, rows = rewards[PREFIXES:] / kl_coef, []
    for level in reversed(_levels()):
        ends = rewards[level, None] / kl_coef
        rows.append(ref[level] + torch.cat([log_z.reshape(-1, END), ends], dim=1))
        log_z = rows[-1].logsumexp(-1)
    return torch.cat(rows[::-1]).log_softmax(-1), kl_coef * log_z[0]


def soft_values(
    logits: Tensor, reference: Tensor, rewards: Tensor, *, kl_coef: float
) -> tuple[Tensor, Tensor]:
    """Q(s, a) and V(s) with the price of KL in them, of any policy (eq-soft-values).

    Q(s, a) is what follows the token a: r(y) if it ends the text, V of the longer prefix else;
    V(s) = Σ_a π(a | s) [Q(s, a) - β log(π(a | s) / π_ref(a | s))].

    Args:
        logits: ``[S, A]`` of π.
        reference: ``[S, A]`` of π_ref.
        rewards: ``[TEXTS]``, r(y).
        kl_coef: β, at least 0.

    Returns:
        ``(q, v)``, ``[S, A]`` and ``[S]``.
    """
    require(kl_coef >= 0, f"kl_coef is {kl_coef}, expected a number of at least 0")
    _check("rewards", rewards, (TEXTS,))
    log_policy = logits.log_softmax(-1)
    price = kl_coef * (log_policy - reference.log_softmax(-1))
    later, q, v = rewards[PREFIXES:], [], []
    for level in reversed(_levels()):
        q.append(torch.cat([later.reshape(-1, END), rewards[level, None]], dim=1))
        later = (log_policy[level].exp() * (q[-1] - price[level])).sum(-1)
        v.append(later)
    return torch.cat(q[::-1]), torch.cat(v[::-1])


def reference_policy() -> Tensor:
    """Logits ``[S, A]`` of a speaker who looks at the last word alone.

    It likes a modifier before an adjective and an end after one, and has no opinion.
    """
    after = {
        None: [0.35, 0.15, 0.23, 0.23, 0.04],
        0: [0.20, 0.10, 0.32, 0.32, 0.06],  # very
        1: [0.25, 0.05, 0.32, 0.32, 0.06],  # not
        2: [0.10, 0.08, 0.08, 0.08, 0.66],  # good
        3: [0.10, 0.08, 0.08, 0.08, 0.66],  # bad
    }
    last = [(words_of(s) or (None,))[-1] for s in range(PREFIXES)]
    return torch.tensor([after[word] for word in last], dtype=torch.float64).log()


def gold_rewards() -> Tensor:
    """r(y), ``[TEXTS]``, by parsing each text: what its reader would pay.

    A text is a list of phrases: modifiers, then an adjective.  Good is worth 1 and bad -1; each
    "very" before it adds a half to its size, and each "not" turns its sign.  A text is worth the
    mean of its phrases, less a half for each phrase after the first.  The empty text is worth 0;
    one that the limit cut, or whose last modifier modifies nothing, is worth -1.
    """
    return torch.tensor([_gold(text) for text in range(TEXTS)], dtype=torch.float64)


def _gold(text: int) -> float:
    size, sign, phrases, open_phrase = 1.0, 1, [], False
    for word in (WORDS[w] for w in words_of(text)):
        open_phrase = word in ("very", "not")
        if word == "very":
            size += 0.5
        elif word == "not":
            sign = -sign
        else:
            phrases.append(sign * size * (1 if word == "good" else -1))
            size, sign = 1.0, 1
    if text >= PREFIXES or open_phrase:
        return -1.0
    if not phrases:
        return 0.0
    return sum(phrases) / len(phrases) - 0.5 * (len(phrases) - 1)


def word_counts(responses: Responses = EVERY) -> Tensor:
    """How often each of the 4 words stands in each text, ``[N, 4]`` float64."""
    found = responses.tokens[None] == torch.arange(END)[:, None, None]
    return (found & responses.mask).sum(1).T.double()


def preferences(
    rewards: Tensor, reference: Tensor, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """n pairs of texts of the reference, the preferred one first.

    A judge prefers y to y' with the probability σ(r(y) - r(y')) (eq-bradley-terry).

    Args:
        rewards: ``[TEXTS]``, r(y) of the judge.
        reference: ``[S, A]``, the logits of who writes the texts.
        n: the number of pairs.
        generator: where the random numbers come from.

    Returns:
        ``(preferred, other)``, both ``[n]`` numbers of texts.
    """
    _check("rewards", rewards, (TEXTS,))
    first, second = sample(reference, 2 * n, generator).texts.reshape(2, n)
    agrees = (rewards[first] - rewards[second]).sigmoid()
    keep = torch.rand(n, generator=generator, dtype=torch.float64) < agrees
    return first.where(keep, second), second.where(keep, first)


def fit_reward_model(features: Tensor, preferred: Tensor, other: Tensor) -> Tensor:
    """w that maximises Σ log σ(w·[x(y) - x(y')]) over pairs, y preferred, by Newton's method.

    A quarter of the squared length of w, as a prior, keeps it finite where the pairs do not.

    Args:
        features: ``[TEXTS, F]`` float64, x(y); r̂(y) = w·x(y).
        preferred: ``[n]`` numbers of texts.
        other: ``[n]`` numbers of texts.

    Returns:
        ``[F]``, the weights.
    """
    require(
        features.ndim == 2 and len(features) == TEXTS,
        f"features has shape {tuple(features.shape)}, expected ({TEXTS}, F)",
    )
    x = features[preferred] - features[other]
    weights, prior = torch.zeros_like(x[0]), 0.5 * torch.eye(x.shape[1], dtype=x.dtype)
    for _ in range(20):
        p = (x @ weights).sigmoid()
        slope = x.T @ (1 - p) - prior @ weights
        curvature = (x * (p * (1 - p))[:, None]).T @ x + prior
        weights = weights + torch.linalg.solve(curvature, slope)
    return weights


def _levels() -> list[slice]:
    """The prefixes of 0, 1, … words, as slices."""
    starts = accumulate((END**t for t in range(LIMIT)), initial=0)
    return [slice(a, b) for a, b in pairwise(starts)]


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    require(tensor.shape == shape, f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
