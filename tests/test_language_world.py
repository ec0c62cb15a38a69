"""The world of language, against brute force and literals worked by hand."""

import math
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from ppo_lib.book.language import train
from ppo_lib.language import world

REFERENCE, GOLD = world.reference_policy(), world.gold_rewards()


def logits(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(341, 5, dtype=torch.float64, generator=generator)


def number(*words: str) -> int:
    """The number of a prefix, and of the text that it is with an end."""
    text = 0
    for word in words:
        text = 4 * text + 1 + world.WORDS.index(word)
    return text


def test_there_are_1365_texts_and_341_prefixes_and_no_two_are_the_same() -> None:
    assert (world.TEXTS, world.PREFIXES) == (1365, 341)
    ended = [words for n in range(5) for words in product(range(4), repeat=n)]
    assert [world.words_of(i) for i in range(341)] == ended
    assert [world.words_of(i) for i in range(341, 1365)] == list(product(range(4), repeat=5))


def test_probabilities_are_products_over_a_walk() -> None:
    probs, found = logits().softmax(-1), world.text_log_probs(logits()).exp()
    expected = probs[0, 0] * probs[1, 2] * probs[number("very", "good"), world.END]
    assert_close(found[number("very", "good")], expected)
    assert_close(found.sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("words", "reward"),
    [
        ((), 0.0),
        (("good",), 1.0),
        (("not", "bad"), 1.0),
        (("very", "not", "very", "good"), -2.0),
        (("not", "not", "bad"), -1.0),
        (("good", "very", "good"), 1.25 - 0.5),
        (("good", "bad", "good"), 1 / 3 - 1.0),
        (("good", "very"), -1.0),
        (("good",) * 5, -1.0),
    ],
)
def test_the_judge_parses(words: tuple[str, ...], reward: float) -> None:
    assert float(GOLD[number(*words)]) == pytest.approx(reward)


def test_a_text_is_said_as_it_ends() -> None:
    assert world.say(number("not", "bad")) == "not bad."
    assert world.say(number(*["good"] * 5)) == "good good good good good…"


@pytest.mark.parametrize("beta", [0.05, 0.3, 3.0])
def test_the_optimum_is_the_closed_form_and_nothing_is_better(beta: float) -> None:
    best, value = world.optimum(REFERENCE, GOLD, kl_coef=beta)
    weights = world.text_log_probs(REFERENCE) + GOLD / beta
    assert_close(world.text_log_probs(best), weights.log_softmax(0))
    assert_close(value, beta * weights.logsumexp(0))
    assert_close(world.kl_objective(best, REFERENCE, GOLD, kl_coef=beta), value)
    other = world.kl_objective(best + 0.01 * logits(), REFERENCE, GOLD, kl_coef=beta)
    assert other < value


def test_the_value_of_the_empty_prefix_is_the_goal() -> None:
    _, v = world.soft_values(logits(), REFERENCE, GOLD, kl_coef=0.3)
    assert_close(v[0], world.kl_objective(logits(), REFERENCE, GOLD, kl_coef=0.3))


def test_soft_policy_iteration_arrives_in_five_steps() -> None:
    best, _ = world.optimum(REFERENCE, GOLD, kl_coef=0.1)
    policy = logits()
    for _ in range(5):
        policy = REFERENCE + world.soft_values(policy, REFERENCE, GOLD, kl_coef=0.1)[0] / 0.1
    assert_close(policy.softmax(-1), best.softmax(-1))


def test_samples_are_texts_as_often_as_they_should_be() -> None:
    drawn = world.sample(logits(), 20_000, torch.Generator().manual_seed(1))
    assert_close(drawn.tokens, world.EVERY.tokens[:, drawn.texts])
    assert_close(drawn.mask, world.EVERY.mask[:, drawn.texts])
    assert_close(drawn.prefixes, world.EVERY.prefixes[:, drawn.texts])
    p = world.text_log_probs(logits()).exp()
    share = drawn.texts.bincount(minlength=1365) / 20_000
    assert bool(((share - p).abs() <= 5 * (p * (1 - p) / 20_000).sqrt() + 2e-4).all())


def test_words_are_counted_and_padding_is_not() -> None:
    counts = world.word_counts()
    assert counts[number("very", "very", "good")].tolist() == [2, 0, 1, 0]
    assert counts[0].tolist() == [0, 0, 0, 0]


def test_the_reward_model_finds_what_the_preferences_were_made_of() -> None:
    truth = torch.tensor([0.5, -1.0, 1.0, -1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    rewards = world.word_counts() @ truth
    pairs = world.preferences(rewards, REFERENCE, 40_000, generator)
    assert_close(world.fit_reward_model(world.word_counts(), *pairs), truth, atol=0.06, rtol=0)


def test_training_comes_near_the_optimum_and_a_mistake_does_not() -> None:
    best, _ = world.optimum(REFERENCE, GOLD, kl_coef=1.0)
    right = train(GOLD, REFERENCE, kl_coef=1.0, seed=0, updates=60, responses=256)
    wrong = train(
        GOLD, REFERENCE, kl_coef=1.0, seed=0, updates=60, responses=256, mistake="KL on padding"
    )
    assert world.kl(right, best) < 0.02 < world.kl(wrong, best)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"logits has shape \(3, 5\), expected \(341, 5\)"):
        world.text_log_probs(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"rewards has shape \(4,\)"):
        world.optimum(REFERENCE, torch.zeros(4), kl_coef=1)
    with pytest.raises(ValueError, match="kl_coef is 0, expected a number above 0"):
        world.optimum(REFERENCE, GOLD, kl_coef=0)
    with pytest.raises(ValueError, match="n is 0"):
        world.sample(REFERENCE, 0, torch.Generator())
    with pytest.raises(ValueError, match="mistake is 'typo', expected one of score after"):
        train(GOLD, REFERENCE, kl_coef=1, seed=0, mistake="typo")
    assert math.isfinite(float(GOLD.sum()))
