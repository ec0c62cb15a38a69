"""The world of language, against brute force and literals worked by hand."""

import inspect
import math
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from ppo_lib.book import language
from ppo_lib.book.language import train
from ppo_lib.language import world
from ppo_lib.language.tokens import token_rewards

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
    assert float(world.gold_rewards()[number(*words)]) == pytest.approx(reward)


def test_a_text_is_said_as_it_ends() -> None:
    assert world.gold_rewards().dtype == torch.float64
    assert world.say(number("not", "bad")) == "not bad."
    assert world.say(number(*["good"] * 5)) == "good good good good good…"
    assert world.say(340) == "bad bad bad bad."
    assert world.say(341) == "very very very very very…"


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
    q, v = world.soft_values(logits(), REFERENCE, GOLD, kl_coef=0.3)
    assert_close(v[0], world.kl_objective(logits(), REFERENCE, GOLD, kl_coef=0.3))
    # And of every prefix: what follows each token, less the price of its probability.
    p, ratio = logits().softmax(-1), logits().log_softmax(-1) - REFERENCE.log_softmax(-1)
    assert_close(v, (p * (q - 0.3 * ratio)).sum(-1))
    assert_close(q[:, world.END], GOLD[:341])
    longer = torch.cat([v, GOLD[341:]])[1:].reshape(-1, 4)
    assert_close(q[:, :4], longer)


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


def test_one_text_may_be_drawn() -> None:
    assert len(world.sample(REFERENCE, 1, torch.Generator()).texts) == 1


def test_kl_is_the_sum_over_a_walk_of_the_divergences_of_its_steps() -> None:
    p, q = logits(1).softmax(-1), logits(2).softmax(-1)
    reached, total = torch.zeros(341, dtype=torch.float64), 0.0
    reached[0] = 1.0
    for s in range(341):
        total += float(reached[s] * (p[s] * (p[s] / q[s]).log()).sum())
        for w in range(4):
            if 4 * s + 1 + w < 341:
                reached[4 * s + 1 + w] = reached[s] * p[s, w]
    assert float(world.kl(logits(1), logits(2))) == pytest.approx(total)


def test_the_speaker_looks_at_the_last_word() -> None:
    probs = world.reference_policy().softmax(-1)
    expected = {
        (): [0.35, 0.15, 0.23, 0.23, 0.04],
        ("bad", "very"): [0.20, 0.10, 0.32, 0.32, 0.06],
        ("good", "not"): [0.25, 0.05, 0.32, 0.32, 0.06],
        ("very", "good"): [0.10, 0.08, 0.08, 0.08, 0.66],
        ("not", "bad"): [0.10, 0.08, 0.08, 0.08, 0.66],
    }
    for words, row in expected.items():
        assert probs[number(*words)].tolist() == pytest.approx(row)
    assert_close(probs.sum(-1), torch.ones(341, dtype=torch.float64))


def test_of_few_pairs_the_prior_keeps_the_weights_short() -> None:
    # n log σ(w) - w²/4 is largest where n (1 - σ(w)) = w/2.
    features = torch.zeros(1365, 1, dtype=torch.float64)
    features[7] = 1.0
    for n in (1, 3):
        found = world.fit_reward_model(features, torch.tensor([7] * n), torch.tensor([8] * n))
        low, high = 0.0, 6.0
        while high - low > 1e-9:
            w = (low + high) / 2
            low, high = (w, high) if n / (1 + math.exp(w)) > w / 2 else (low, w)
        assert found.tolist() == pytest.approx([low], abs=1e-7)


def test_a_text_that_is_worth_log_3_more_is_preferred_three_times_in_four() -> None:
    rewards = torch.zeros(1365, dtype=torch.float64)
    good, bad = number("good"), number("bad")
    rewards[good] = math.log(3)
    chosen = torch.full((341, 5), -40.0, dtype=torch.float64)
    chosen[0, 2:4] = 0.0  # "good." or "bad.", as often
    chosen[[good, bad], world.END] = 0.0
    pairs = world.preferences(rewards, chosen, 4000, torch.Generator().manual_seed(0))
    assert [len(x) for x in pairs] == [4000, 4000]
    again = world.preferences(rewards, chosen, 4000, torch.Generator().manual_seed(0))
    assert all(torch.equal(x, y) for x, y in zip(pairs, again, strict=True))
    apart = pairs[0] != pairs[1]
    assert abs(int(apart.sum()) - 2000) < 5 * 1000**0.5
    share = (pairs[0][apart] == good).double().mean().item()
    assert abs(share - 0.75) < 5 * (3 / 16 / int(apart.sum())) ** 0.5


# -- training, and its mistakes ------------------------------------------------------------

#: A text of two tokens and its padding, and one that the limit cuts.
MASK = torch.tensor([[1, 1], [1, 1], [0, 1]]).bool()


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ("", [[7, 7], [7, 7], [7, 7]]),
        ("values shifted by one", [[7, 7], [7, 7], [7, 7]]),
        ("score after the end", [[-1, -2], [-3, -4], [2, 5 - 6]]),
        ("score on every token", [[2 - 1, 5 - 2], [2 - 3, 5 - 4], [0, 5 - 6]]),
        ("KL on padding", [[0, 0], [2 - 1 - 3 - 5, 0], [0, 5 - 2 - 4 - 6]]),
    ],
)
def test_rewards_with_a_mistake_in_them_by_hand(mistake: str, expected: list) -> None:
    scores, price = torch.tensor([2.0, 5.0]), torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    ref = torch.full((3, 2), -1.0)
    found = language._planted_rewards(
        mistake, torch.full((3, 2), 7.0), scores, ref + price / 10, ref, MASK, 10.0
    )
    assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_the_third_estimate_of_kl_as_a_reward_by_hand() -> None:
    scores, d = torch.tensor([2.0, 5.0]), torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    found = language._planted_rewards(
        "k3 in the reward", torch.zeros(3, 2), scores, d - 1, torch.full((3, 2), -1.0), MASK, 10.0
    )
    penalty = [[10 * (math.exp(-x) - 1 + x) for x in row] for row in d.tolist()]
    penalty[2][0] = 0.0
    expected = -torch.tensor(penalty)
    expected[1, 0] += 2
    expected[2, 1] += 5
    assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.fixture
def trained(monkeypatch):
    """Train for two updates of two steps; what the second one was given, by its function."""

    def run(mistake: str = "", **more) -> dict:
        seen = {}

        def watched(place, name):
            real = getattr(place, name)

            def watching(*args, **named):
                seen[name] = (*args, *named.values())
                seen[f"from {name}"] = result = real(*args, **named)
                return result

            monkeypatch.setattr(place, name, watching)

        for name in ("gae", "clipped_surrogate_loss", "surrogate_loss", "value_loss"):
            watched(language, name)
        watched(world, "sample")
        numbers = {"updates": 2, "responses": 64, "epochs": 2} | more
        seen["end"] = train(GOLD, REFERENCE, kl_coef=0.5, seed=0, mistake=mistake, **numbers)
        monkeypatch.undo()
        return seen

    return run


def test_what_an_update_is_given(trained) -> None:
    right = trained()
    r, values, later, ends, cut, gamma, lam = right["gae"]
    assert (gamma, lam) == (1.0, 1.0)
    assert not cut.any()
    # One end a text; the value after it is 0, and before it that of the next prefix.
    assert ends.sum(0).tolist() == [1] * 64
    assert not later[ends].any()
    alive = ~ends[:-1] & (later[:-1] != 0)
    assert_close(later[:-1][alive], values[1:][alive])
    assert bool((values != 0).any())
    _, old, advantages, clip = right["clipped_surrogate_loss"]
    _, returns = right["value_loss"]
    assert clip == 0.2
    assert "surrogate_loss" not in right
    assert not right["end"].requires_grad
    # With γ and λ of 1 an advantage is the sum of what follows, less the value.
    mask = ends.flip(0).cumsum(0).flip(0) > 0
    assert len(old) == len(advantages) == len(returns) == int(mask.sum())
    follows = r.flip(0).cumsum(0).flip(0)
    assert_close(advantages, (follows - values)[mask])
    assert_close(returns, follows[mask])


def test_each_mistake_changes_what_it_names(trained) -> None:
    found = trained("rewards as advantages")
    r, values, _, ends = found["gae"][:4]
    mask = ends.flip(0).cumsum(0).flip(0) > 0
    assert_close(found["clipped_surrogate_loss"][2], (r - values)[mask])
    assert_close(found["value_loss"][1], r[mask])
    found = trained("critic trained on rewards")
    r, _, _, ends = found["gae"][:4]
    mask = ends.flip(0).cumsum(0).flip(0) > 0
    assert_close(found["value_loss"][1], r[mask])
    assert not torch.equal(found["clipped_surrogate_loss"][2], r[mask])
    found = trained("values shifted by one")
    _, values, later, ends = found["gae"][:4]
    assert not values[ends].any()
    assert bool((values[:-1] != 0).any())
    assert_close(later[:-1], values[1:] * (ends.flip(0).cumsum(0).flip(0) > 0)[1:])
    found = trained("end masked as padding")
    drawn = found["from sample"]
    words = drawn.mask & (drawn.tokens != world.END)
    assert 0 < int(words.sum()) < int(drawn.mask.sum())
    assert_close(found["value_loss"][1], found["from gae"][1][words])
    assert "surrogate_loss" in trained(clip_range=None)


def test_texts_are_drawn_from_the_policy_or_from_a_colder_one(trained) -> None:
    for mistake, temperature in (("", 1.0), ("sampled at temperature 0.7", 0.7)):
        found = trained(mistake, updates=1)
        assert_close(found["sample"][0].detach(), REFERENCE / temperature)


def test_rates_and_prices_go_down_as_the_docstring_says(monkeypatch) -> None:
    made, rates, prices = [], [], []

    class Watched(torch.optim.Adam):
        def __init__(self, params, lr, **more):
            super().__init__(params, lr, **more)
            made.append((lr, more))

        def step(self):
            rates.append(self.param_groups[0]["lr"])
            return super().step()

    def watched(*args, kl_coef):
        prices.append(kl_coef)
        return token_rewards(*args, kl_coef=kl_coef)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    monkeypatch.setattr(language, "token_rewards", watched)
    few = {"seed": 0, "updates": 4, "responses": 8, "epochs": 1}
    train(GOLD, REFERENCE, kl_coef=0.25, learning_rate=0.4, **few)
    assert made == [(0.4, {"betas": (0.9, 0.99), "eps": 1.25e-4}), (0.1, {})]
    assert rates[0::2] == pytest.approx([0.4, 0.4 * 0.75**0.5, 0.4 * 0.5**0.5, 0.2])
    assert rates[1::2] == [0.1] * 4
    assert prices == pytest.approx([1, 0.5, 0.25, 0.25])
    prices.clear()
    train(GOLD, REFERENCE, kl_coef=2.0, **few)  # not below where it is to end
    assert prices == [2.0] * 4


def test_numbers_that_nobody_gives_are_those_that_the_chapter_relies_on() -> None:
    parameters = inspect.signature(train).parameters
    expected = {"start_coef": 1.0, "updates": 200, "responses": 1024, "epochs": 4}
    expected |= {"learning_rate": 0.2, "clip_range": 0.2, "gamma": 1.0, "gae_lambda": 1.0}
    assert {name: parameters[name].default for name in expected} == expected


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
    for call in (world.kl_objective, world.soft_values):
        call(REFERENCE, REFERENCE, GOLD, kl_coef=0)
        with pytest.raises(ValueError, match="kl_coef is -1, expected a number of at least 0"):
            call(REFERENCE, REFERENCE, GOLD, kl_coef=-1)
        with pytest.raises(ValueError, match=r"rewards has shape \(4,\)"):
            call(REFERENCE, REFERENCE, GOLD[:4], kl_coef=1)
    with pytest.raises(ValueError, match=r"reference has shape \(3, 5\)"):
        world.optimum(REFERENCE[:3], GOLD, kl_coef=1)
    with pytest.raises(ValueError, match=r"logits has shape \(3, 5\)"):
        world.sample(REFERENCE[:3], 1, torch.Generator())
    with pytest.raises(ValueError, match=r"rewards has shape \(4,\)"):
        world.preferences(GOLD[:4], REFERENCE, 1, torch.Generator())
    for features in (torch.zeros(1365), torch.zeros(341, 2)):
        with pytest.raises(ValueError, match=r"features has shape .*, expected \(1365, F\)"):
            world.fit_reward_model(features, torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(ValueError, match="kl_coef is 0, expected a number above 0"):
        train(GOLD, REFERENCE, kl_coef=0, seed=0)
