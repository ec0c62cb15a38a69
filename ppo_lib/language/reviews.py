"""Short reviews of films and of food, from a grammar of our own, and a judge who can read them.

A text is a prompt, ``film:`` or ``food:``, and a review of at most `LIMIT` tokens, the last of
which is the full stop that ends it.  A review is one to three clauses joined by "and", "the plot is
very good", each about a thing that belongs to the prompt.

The judge parses.  So the true, *gold* reward of any sequence of tokens is known, and whether it
is a review at all.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from ppo_lib.validate import require

NOUNS = {
    "film:": ("plot", "cast", "music", "ending", "script"),
    "food:": ("soup", "bread", "sauce", "dessert", "service"),
}
#: What an adjective is worth.
WORTH = (
    dict.fromkeys(("great", "superb", "lovely", "brilliant"), 2.0)
    | dict.fromkeys(("good", "nice", "decent", "pleasant"), 1.0)
    | dict.fromkeys(("dull", "bland", "weak", "poor"), -1.0)
    | dict.fromkeys(("awful", "horrible", "dreadful", "terrible"), -2.0)
)
#: What an adverb makes of it; no adverb leaves it as it is.
FACTOR = {"very": 1.5, "quite": 0.5, "not": -0.5}
REPEATED, NO_REVIEW = -2.0, -4.0  #: the worth of a clause with an old adjective; of no review

WORDS = (".", "film:", "food:", "the", "is", "and", *FACTOR)
WORDS += (*NOUNS["film:"], *NOUNS["food:"], *WORTH)
NUMBER = {word: i for i, word in enumerate(WORDS)}
END = NUMBER["."]
PROMPTS = tuple(NUMBER[prompt] for prompt in NOUNS)
LIMIT, MAX_CLAUSES = 18, 3


def write(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n reviews from the grammar, every choice with equal chances.

    Args:
        n: N, at least 1.
        seed: of Python's random numbers.

    Returns:
        ``(prompts, tokens)``: ``[N]`` and ``[LIMIT, N]`` int64, padded with `END`.
    """
    require(n >= 1, f"n is {n}, expected at least 1")
    rng = random.Random(seed)
    prompts, rows = [], []
    for _ in range(n):
        prompt = rng.choice(tuple(NOUNS))
        row = [NUMBER[word] for word in _review(prompt, rng)]
        prompts.append(NUMBER[prompt])
        rows.append(row + [END] * (LIMIT - len(row)))
    return torch.tensor(prompts), torch.tensor(rows).T.contiguous()


def _review(prompt: str, rng: random.Random) -> list[str]:
    words: list[str] = []
    for _ in range(rng.randint(1, MAX_CLAUSES)):
        noun, adverb = rng.choice(NOUNS[prompt]), rng.choice(("", "", *FACTOR))
        words += ["and", "the", noun, "is", *([adverb] if adverb else [])]
        words.append(rng.choice(tuple(WORTH)))
    return [*words[1:], "."]


def parse(prompt: str, words: Sequence[str]) -> list[tuple[str, str, float]] | None:
    """The clauses of a review, or None if it is none.

    Args:
        prompt: ``"film:"`` or ``"food:"``.
        words: of the response, the full stop included.

    Returns:
        ``(noun, adjective, worth)`` of each clause.  None if a clause is not one, a noun does not
        belong to the prompt, there are too many clauses, or the end is missing.
    """
    require(prompt in NOUNS, f"prompt is {prompt!r}, expected one of {', '.join(NOUNS)}")
    if not words or words[-1] != ".":
        return None
    clauses: list[tuple[str, str, float]] = []
    for clause in " ".join(words[:-1]).split(" and "):
        the, noun, verb, *adverb, adjective = clause.split() if clause.count(" ") > 2 else "----"
        if (the, verb) != ("the", "is") or noun not in NOUNS[prompt]:
            return None
        if len(adverb) > 1 or not set(adverb) <= FACTOR.keys() or adjective not in WORTH:
            return None
        factor = FACTOR[adverb[0]] if adverb else 1.0
        clauses.append((noun, adjective, factor * WORTH[adjective]))
    return clauses if len(clauses) <= MAX_CLAUSES else None


def gold_of(prompt: str, words: Sequence[str]) -> float:
    """What the judge pays: the worth of all clauses, `REPEATED` for one with an old adjective.

    Who says one thing of everything is not believed.  What is no review is worth `NO_REVIEW`.
    """
    clauses = parse(prompt, words)
    if clauses is None:
        return NO_REVIEW
    said = [adjective for _, adjective, _ in clauses]
    return sum(
        REPEATED if adjective in said[:i] else worth
        for i, (_, adjective, worth) in enumerate(clauses)
    )


def words_of(tokens: Sequence[int]) -> list[str]:
    """The words of a response up to its first full stop, which is one of them."""
    tokens = list(tokens)
    if END in tokens:
        tokens = tokens[: tokens.index(END) + 1]
    return [WORDS[token] for token in tokens]


def judge(prompts: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The gold reward of N responses, and which of them are reviews.

    Args:
        prompts: ``[N]`` int64, of `PROMPTS`.
        tokens: ``[T, N]`` int64; what stands after the first end is padding.

    Returns:
        ``(gold, grammatical)``: ``[N]`` float32 and ``[N]`` bool.
    """
    require(
        tokens.ndim == 2 and prompts.shape == tokens.shape[1:],
        f"prompts has shape {tuple(prompts.shape)} and tokens {tuple(tokens.shape)}, "
        "expected [N] and [T, N]",
    )
    pairs = [
        (WORDS[prompt], words_of(column))
        for prompt, column in zip(prompts.tolist(), tokens.T.tolist(), strict=True)
    ]
    gold = torch.tensor([gold_of(*pair) for pair in pairs])
    return gold, torch.tensor([parse(*pair) is not None for pair in pairs])


def say(prompt: int, tokens: Sequence[int]) -> str:
    """A text as one reads it; … stands where the limit cut it."""
    text = " ".join([WORDS[prompt], *words_of(tokens)])
    return text.replace(" .", ".") if END in tokens else text + " …"
