"""The small language model, its reviews and its tuning, against independent truths."""

import inspect
import math
from copy import deepcopy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from ppo_lib.language import reviews, tuning
from ppo_lib.language.tokens import last_token, response_mask
from ppo_lib.language.transformer import LanguageModel, attend, generate, read, scores


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    small = LanguageModel(len(reviews.WORDS), reviews.LIMIT + 1, generator(3), width=16, heads=2)
    torch.nn.init.normal_(small.value.weight, generator=generator(4))
    return small


@pytest.fixture(scope="module")
def texts() -> tuple[torch.Tensor, torch.Tensor]:
    return reviews.write(50, seed=1)


# -- the transformer -----------------------------------------------------------------------


def test_attention_is_that_of_torch() -> None:
    q, k, v = torch.randn(3, 2, 4, 7, 5, generator=generator()).unbind()
    assert_close(attend(q, k, v), scaled_dot_product_attention(q, k, v, is_causal=True))


def test_attention_of_the_last_places_alone() -> None:
    q, k, v = torch.randn(3, 2, 7, 5, generator=generator()).unbind()
    assert_close(attend(q[:, -3:], k, v), attend(q, k, v)[:, -3:])


def test_attention_row_by_hand() -> None:
    q = torch.tensor([[0.0], [1.0]])
    k, v = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]])
    e = torch.tensor(2.0).exp()
    assert_close(attend(q, k, v), torch.stack([v[0], (3 + 5 * e)[None] / (1 + e)]))


def test_a_block_is_a_layer_of_torch(model: LanguageModel) -> None:
    block = model.blocks[0]
    layer = torch.nn.TransformerEncoderLayer(
        16, 2, 64, dropout=0.0, batch_first=True, norm_first=True
    )
    with torch.no_grad():
        for ours, theirs in (
            (block.queries_keys_values.weight, layer.self_attn.in_proj_weight),
            (block.queries_keys_values.bias, layer.self_attn.in_proj_bias),
            (block.out.weight, layer.self_attn.out_proj.weight),
            (block.out.bias, layer.self_attn.out_proj.bias),
            (block.mlp[0].weight, layer.linear1.weight),
            (block.mlp[0].bias, layer.linear1.bias),
            (block.mlp[2].weight, layer.linear2.weight),
            (block.mlp[2].bias, layer.linear2.bias),
        ):
            theirs.copy_(ours)
    x = torch.randn(3, 6, 16, generator=generator())
    mask = torch.nn.Transformer.generate_square_subsequent_mask(6)
    assert_close(block(x, None)[0], layer(x, src_mask=mask), atol=1e-5, rtol=1e-5)


def test_a_model_adds_the_places_and_reads_what_the_last_block_has(model, texts) -> None:
    tokens = texts[1]
    x = torch.stack([model.token.weight[row] for row in tokens.T])
    x = x + model.place.weight[: len(tokens)]
    for block in model.blocks:
        x, _ = block(x, None)
    x = torch.nn.functional.layer_norm(x, (16,), model.norm.weight, model.norm.bias)
    logits, values = model(tokens)
    assert_close(logits, (x @ model.logits.weight.T + model.logits.bias).transpose(0, 1))
    assert_close(values, (x @ model.value.weight[0] + model.value.bias).T)


def test_nothing_sees_what_comes_later(model: LanguageModel, texts) -> None:
    prompts, tokens = texts
    changed = tokens.clone()
    changed[5:] = 7
    for before, after in zip(
        read(model, prompts, tokens), read(model, prompts, changed), strict=True
    ):
        # Row 5 is of the prefix of the prompt and tokens 0 to 4; its action differs.
        rows = 5 if before.ndim == 2 else 6
        assert_close(before[:rows], after[:rows])
    assert not torch.equal(
        read(model, prompts, tokens)[1][6:], read(model, prompts, changed)[1][6:]
    )


def test_the_cache_gives_the_same_numbers(model: LanguageModel, texts) -> None:
    tokens = torch.cat([texts[0][None], texts[1]])
    logits, values = model(tokens)
    cache = []
    parts = [model(part, cache) for part in tokens.split([1, 1, 4, len(tokens) - 6])]
    assert_close(torch.cat([part[0] for part in parts]), logits, atol=1e-5, rtol=1e-5)
    assert_close(torch.cat([part[1] for part in parts]), values, atol=1e-5, rtol=1e-5)


def test_the_places_in_the_cache_count_towards_the_context(model: LanguageModel) -> None:
    tokens, cache = torch.zeros(19, 2, dtype=torch.int64), []
    model(tokens[:17], cache)
    with pytest.raises(ValueError, match=r"^tokens end at place 20, expected at most 19$"):
        model(tokens[:3], cache)
    logits, _ = model(tokens[:2], cache)
    assert_close(logits, model(tokens)[0][-2:], atol=1e-5, rtol=1e-5)


def test_generation_is_the_same_without_the_cache(model: LanguageModel) -> None:
    prompts = torch.tensor(reviews.PROMPTS).repeat(20)
    draws = [
        generate(model, prompts, 10, reviews.END, generator(5), use_cache=use)
        for use in (True, False)
    ]
    assert torch.equal(*draws)
    mask = response_mask(draws[0], reviews.END)
    assert bool((draws[0][~mask] == reviews.END).all())


def test_what_is_written_has_the_same_log_probabilities_with_and_without_the_cache(
    model: LanguageModel,
) -> None:
    prompts = torch.tensor(reviews.PROMPTS).repeat(20)
    tokens = generate(model, prompts, 10, reviews.END, generator(6))
    whole, values, _ = read(model, prompts, tokens)
    cache, rows = [], torch.cat([prompts[None], tokens])
    for t in range(10):
        logits, value = model(rows[t : t + 1], cache)
        step = logits[0].log_softmax(-1).gather(1, rows[t + 1, :, None])[:, 0]
        assert_close(step, whole[t], atol=1e-5, rtol=0)
        assert_close(value[0], values[t], atol=1e-5, rtol=0)


def test_no_random_number_is_taken_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    made = [LanguageModel(len(reviews.WORDS), reviews.LIMIT + 1, generator(3)) for _ in range(2)]
    for a, b in zip(*(m.parameters() for m in made), strict=True):
        assert torch.equal(a, b)
    tuned = tuning.pretrain(0, steps=1, batch=4)
    pairs = tuning.preferences(tuned, 4, generator())
    fitted = tuning.fit_reward_model(tuned, pairs, generator(), epochs=1)
    list(tuning.tune(tuned, made[0], fitted, generator(), kl_coef=0.1, updates=1, responses=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_generation_draws_from_the_logits(model: LanguageModel) -> None:
    prompts = torch.full((20_000,), reviews.PROMPTS[0])
    drawn = generate(model, prompts, 1, reviews.END, generator())[0]
    expected = model(prompts[None, :1])[0][0, 0].softmax(-1)
    found = drawn.bincount(minlength=len(expected)) / len(drawn)
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert bool(((found - expected).abs() < 5 * error).all())


def test_what_is_read_of_each_token_by_a_loop(model: LanguageModel, texts) -> None:
    prompts, tokens = texts[0][:3], texts[1][:, :3]
    log_probs, values, _ = read(model, prompts, tokens)
    number = scores(model, prompts, tokens, last_token(response_mask(tokens, reviews.END)))
    for n in range(3):
        column = [int(prompts[n]), *tokens[:, n].tolist()]
        for t in range(len(tokens)):
            logits, value = model(torch.tensor(column[: t + 1])[:, None])
            expected = logits[-1, 0].log_softmax(-1)[column[t + 1]]
            assert_close(log_probs[t, n], expected, atol=1e-5, rtol=1e-5)
            assert_close(values[t, n], value[-1, 0], atol=1e-5, rtol=1e-5)
        whole = column[: column.index(reviews.END) + 1]
        expected = model(torch.tensor(whole)[:, None])[1][-1, 0]
        assert_close(number[n], expected, atol=1e-5, rtol=1e-5)


def test_a_model_takes_its_weights_from_the_generator_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        model = LanguageModel(9, 5, generator(3), width=16, heads=2)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights(1), weights(2))


def test_the_size_that_the_chapter_names() -> None:
    model = LanguageModel(len(reviews.WORDS), reviews.LIMIT + 1, generator())
    v, c, d = len(reviews.WORDS), reviews.LIMIT + 1, 64
    block = 4 * d + (d + 1) * 3 * d + (d + 1) * d + (d + 1) * 4 * d + (4 * d + 1) * d
    expected = v * d + c * d + 2 * block + 2 * d + (d + 1) * v + d + 1
    assert sum(p.numel() for p in model.parameters()) == expected


# -- the reviews and their judge -----------------------------------------------------------

GOLD = {
    "film: the plot is good .": 1.0,
    "film: the plot is very good and the cast is not great .": 1.5 - 1.0,
    "food: the soup is quite awful and the soup is lovely and the bread is weak .": -1 + 2 - 1,
    "food: the soup is lovely and the bread is lovely .": 2.0 + reviews.REPEATED,
    "food: the soup is dull and the bread is not dull .": -1.0 + reviews.REPEATED,
}
NO_REVIEWS = [
    "film: .",
    "film: the plot is good",
    "film: the soup is good .",
    "film: the plot is very very good .",
    "film: the plot is good and .",
    "film: the plot is good good .",
    "film: plot is good .",
    "film: the plot is very .",
    "film: the plot the is good .",
    "film: good is the plot .",
    "film: and the plot is good .",
    "film: the plot is good and and the cast is good .",
    "film: " + " and ".join(["the plot is good"] * 4) + " .",
    "film: film: plot is good .",
    "film: the plot is plot .",
    "film: the plot is good good",
    "film:",
]


@pytest.mark.parametrize("text", GOLD)
def test_the_gold_reward_of_written_reviews(text: str) -> None:
    prompt, *words = text.split()
    assert reviews.gold_of(prompt, words) == GOLD[text]


@pytest.mark.parametrize("text", NO_REVIEWS)
def test_what_is_no_review(text: str) -> None:
    prompt, *words = text.split()
    assert reviews.parse(prompt, words) is None
    assert reviews.gold_of(prompt, words) == reviews.NO_REVIEW


def test_the_judge_knows_every_review_of_one_clause() -> None:
    adverbs = ("", *reviews.FACTOR)
    every = {
        f"the {noun} is {adverb} {adjective} .".replace("  ", " ")
        for noun in reviews.NOUNS["food:"]
        for adverb in adverbs
        for adjective in reviews.WORTH
    }
    wrong = {"the", "is", "very", "good", "soup", "plot", "."}
    for a in wrong:
        for b in wrong:
            for c in wrong:
                text = f"the {a} {b} {c} ."
                assert (reviews.parse("food:", text.split()) is not None) == (text in every)
    assert all(reviews.parse("food:", text.split()) for text in every)


def test_the_grammar_writes_reviews_alone(texts) -> None:
    gold, grammatical = reviews.judge(*texts)
    assert bool(grammatical.all())
    assert reviews.write(50, seed=1)[1].equal(texts[1])
    assert [x.shape[-1] for x in reviews.write(1, seed=1)] == [1, 1]
    assert gold[0] == reviews.gold_of(
        reviews.WORDS[texts[0][0]], reviews.words_of(texts[1][:, 0].tolist())
    )


def test_padding_is_not_read(texts) -> None:
    prompts, tokens = texts
    noise = tokens.where(response_mask(tokens, reviews.END), 9)
    assert_close(reviews.judge(prompts, noise)[0], reviews.judge(prompts, tokens)[0])
    assert reviews.say(int(prompts[0]), noise[:, 0].tolist()).endswith(".")
    assert reviews.say(1, [3, 4]) == "film: the is …"


# -- pretraining, preferences, the reward model --------------------------------------------


def test_pretraining_learns_and_can_be_repeated() -> None:
    a, b = (tuning.pretrain(7, steps=40, batch=16) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    prompts, tokens = reviews.write(100, seed=99)
    mask = response_mask(tokens, reviews.END)
    surprise = -read(a, prompts, tokens)[0][mask].mean().item()
    assert surprise < 2.0 < torch.tensor(float(len(reviews.WORDS))).log()


def test_preferences_follow_the_judge(model: LanguageModel) -> None:
    def judge(_prompts, tokens):
        return (tokens == reviews.END).sum(0) * 100.0, None

    pairs = tuning.preferences(model, 60, generator(), judge=judge)
    ends = [(x == reviews.END).sum(0) for x in (pairs.preferred, pairs.other)]
    assert bool((ends[0] >= ends[1]).all())
    assert bool((ends[0] > ends[1]).any())

    def indifferent(_prompts, tokens):
        return torch.zeros(tokens.shape[1]), None

    drawn = tuning.preferences(model, 200, generator(), judge=indifferent)
    first = tuning.sample(model, 200, generator())[1]
    kept = int((drawn.preferred == first).all(0).sum())
    assert 60 < kept < 140


def test_the_loss_of_preferences_and_its_gradient_by_hand() -> None:
    x = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    y = torch.tensor([0.5, 1.0, 0.5])
    loss = tuning.preference_loss(x, y)
    p = 1 / (1 + (-(x.detach() - y)).exp())
    assert_close(loss.detach(), -p.log().mean())
    loss.backward()
    assert_close(x.grad, -(1 - p) / 3)


def test_the_reward_model_learns_a_simple_taste(model: LanguageModel) -> None:
    def judge(_prompts, tokens):
        return (tokens == reviews.NUMBER["the"]).sum(0) * 3.0, None

    before = deepcopy(model.state_dict())
    pairs = tuning.preferences(model, 400, generator(), judge=judge)
    fitted = tuning.fit_reward_model(model, pairs, generator(), epochs=8)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert not any(p.requires_grad for p in fitted.parameters())
    a, b = (tuning.reward(fitted, pairs.prompts, x) for x in (pairs.preferred, pairs.other))
    assert float((a > b).float().mean()) > 0.7
    assert_close((a.mean() + b.mean()) / 2, torch.tensor(0.0), atol=1e-4, rtol=0)


# -- PPO -----------------------------------------------------------------------------------


def test_a_batch_against_loops(model: LanguageModel) -> None:
    reference = LanguageModel(len(reviews.WORDS), reviews.LIMIT + 1, generator(9))
    batch = tuning.draw(model, reference, model, 6, generator(), kl_coef=0.3, gae_lambda=0.9)
    advantages = torch.zeros_like(batch.values)
    for n in range(6):
        length = int(batch.mask[:, n].sum())
        after = 0.0
        for t in reversed(range(length)):
            ratio = batch.log_probs[t, n] - batch.ref_log_probs[t, n]
            reward = -0.3 * ratio + (batch.scores[n] if t == length - 1 else 0.0)
            assert_close(batch.rewards[t, n], reward)
            later = batch.values[t + 1, n] if t < length - 1 else 0.0
            after = reward + later - batch.values[t, n] + 0.9 * after
            advantages[t, n] = after
            assert_close(batch.returns[t, n], after + batch.values[t, n], atol=1e-5, rtol=1e-5)
    some = advantages[batch.mask]
    expected = (some - some.mean()) / some.std()
    assert_close(batch.advantages[batch.mask], expected, atol=1e-4, rtol=1e-4)


def test_an_update_makes_good_tokens_more_probable(model: LanguageModel) -> None:
    policy = deepcopy(model)
    batch = tuning.draw(policy, model, model, 64, generator(), kl_coef=0.0)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    cut = tuning.update(policy, optimizer, batch, generator())
    assert 0 <= cut < 0.5
    change = read(policy, batch.prompts, batch.tokens)[0] - batch.log_probs
    assert float((change * batch.advantages)[batch.mask].mean().detach()) > 0


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_the_share_that_the_clip_cuts_counts_both_sides(ratio: float, model) -> None:
    batch = tuning.draw(model, model, model, 4, generator(), kl_coef=0.0)
    batch = batch._replace(log_probs=batch.log_probs - math.log(ratio))
    policy = deepcopy(model)
    still = torch.optim.SGD(policy.parameters(), 0.0)
    assert tuning.update(policy, still, batch, generator()) == 1


def test_padding_changes_no_update(model: LanguageModel) -> None:
    found = []
    for fill in (reviews.END, 5):
        policy = deepcopy(model)
        batch = tuning.draw(policy, model, model, 16, generator(), kl_coef=0.1)
        batch = batch._replace(tokens=batch.tokens.where(batch.mask, fill))
        tuning.update(policy, torch.optim.SGD(policy.parameters(), 0.1), batch, generator())
        found.append(torch.cat([p.flatten() for p in policy.parameters()]))
    assert_close(*found, atol=1e-5, rtol=1e-4)


def test_tuning_shows_the_batch_before_it_learns(model: LanguageModel) -> None:
    policy = deepcopy(model)
    run = tuning.tune(policy, model, model, generator(), kl_coef=0.1, updates=3, responses=8)
    first = next(run)
    assert_close(first.log_probs, first.ref_log_probs)
    measured = tuning.measure(first)
    assert measured["kl"] == pytest.approx(0, abs=1e-5)
    assert measured["score"] == pytest.approx(first.scores.mean().item())
    assert len(list(run)) == 2
    assert not torch.equal(policy.logits.weight, model.logits.weight)


def test_the_optimum_from_samples_of_two_policies() -> None:
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    r = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    exact = 0.5 * (p * (r / 0.5).exp()).sum().log().item()
    for law in (p, q):
        drawn = law.multinomial(40_000, True, generator=generator())
        ratio = (law / p).log()[drawn]
        found = tuning.optimum_value(r[drawn], ratio, kl_coef=0.5)
        assert abs(found.value - exact) < 5 * found.standard_error
        weights = (r / 0.5).exp() * p / law
        share = (law @ weights) ** 2 / (law @ weights**2)
        assert found.effective_samples / 40_000 == pytest.approx(float(share), abs=0.02)


def test_each_prompt_has_an_optimum_of_its_own():
    # Z is 1 for one prompt and e^2 for the other: the mean of the two values is not β log of the
    # mean of Z, 0.717.
    scores, prompts = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([3, 3, 5, 5])
    found = tuning.optimum_value(scores, torch.zeros(4), prompts, kl_coef=0.5)
    assert found.value == pytest.approx(0.5)
    assert found.effective_samples == pytest.approx(4)
    three = tuning.optimum_value(
        torch.tensor([0.0, 1.0, 5.0]).repeat(2),
        torch.zeros(6),
        torch.tensor([3, 5, 7]).repeat(2),
        kl_coef=0.5,
    )
    assert three.value == pytest.approx(2)


def test_the_optimum_of_rewards_whose_exponential_is_infinite() -> None:
    found = tuning.optimum_value(torch.tensor([0.0, 1000.0]), torch.zeros(2), kl_coef=1.0)
    assert found.value == pytest.approx(1000 - math.log(2))


# -- numbers by hand -----------------------------------------------------------------------


def test_what_trains_a_model_is_adam_with_a_short_memory(model, monkeypatch) -> None:
    made, rates = [], []

    class Watched(torch.optim.Adam):
        def __init__(self, params, *args, **more):
            super().__init__(params, *args, **more)
            made.append((*args, more))

        def step(self):
            rates.append(self.param_groups[0]["lr"])
            return super().step()

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    assert tuning.pretrain(0, steps=1, batch=2).place.num_embeddings == 19  # prompt and 18 tokens
    pairs = tuning.preferences(model, 2, generator())
    tuning.fit_reward_model(model, pairs, generator(), epochs=1)
    list(
        tuning.tune(deepcopy(model), model, model, generator(), kl_coef=0.1, updates=1, responses=2)
    )
    assert made == [({"betas": (0.9, 0.95)},)] * 2 + [(1e-3, {})]
    assert rates == pytest.approx([4e-3 / 20, 3e-3 / 20] + [1e-3] * 4)
    assert len(tuning.sample(model, 1, generator())[0]) == 1


def test_reviews_have_one_to_three_clauses(texts) -> None:
    commas = (texts[1] == reviews.NUMBER["and"]).sum(0)
    assert set(commas.tolist()) == {0, 1, 2}


def test_a_model_reads_where_it_is(model: LanguageModel) -> None:
    # The device that computes nothing tells where a tensor of another one comes in.
    away = deepcopy(model).to("meta")
    tokens = torch.zeros(5, 2, dtype=torch.int64, device="meta")
    assert {x.device.type for x in away(tokens)} == {"meta"}


def test_the_rate_goes_up_for_20_steps_and_then_down_to_0() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    seen = []
    for step in (0, 4, 18, 19, 20, 50, 99):
        tuning._set_rate(optimizer, 2.0, step, 100)
        seen.append(optimizer.param_groups[0]["lr"])
    # 2 (s + 1)/20 (1 - s/100) up to step 19, 2 (1 - s/100) from there on.
    assert seen == pytest.approx([0.1, 0.48, 1.558, 1.62, 1.6, 1.0, 0.02])


def test_a_step_scales_a_long_gradient_down_to_length_1_and_forgets_the_last_one() -> None:
    x = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.SGD([x], 1.0)
    tuning._step(optimizer, 10 * x.sum())  # of length 20
    assert_close(x.detach(), torch.full((4,), -0.5))
    tuning._step(optimizer, 0.25 * x.sum())  # of length 1/2
    assert_close(x.detach(), torch.full((4,), -0.75))


def test_weights_begin_where_the_docstring_says() -> None:
    fresh = LanguageModel(200, 100, generator())
    for name, weight in fresh.named_parameters():
        values = weight.detach()
        if name == "value.weight" or name.endswith("bias"):
            assert not values.any(), name
        elif "norm" in name or "before" in name:
            assert bool((values == 1).all()), name
        else:
            scale = 0.1 if name in ("token.weight", "place.weight") else weight.shape[1] ** -0.5
            # The relative error of a standard deviation of n numbers is 1 / √(2 n).
            assert values.std().item() == pytest.approx(scale, rel=5 / (2 * values.numel()) ** 0.5)


def test_an_update_is_a_step_along_the_gradient_of_both_losses(model: LanguageModel) -> None:
    drawn = tuning.draw(model, model, model, 8, generator(), kl_coef=0.1)
    # Of half of the responses every ratio is e^0.3, of the others 1.
    shift = torch.tensor([0.3, 0.0] * 4)
    batch = drawn._replace(log_probs=drawn.log_probs - shift)
    policy, other = deepcopy(model), deepcopy(model)
    optimizer = torch.optim.SGD(policy.parameters(), 0.1)
    cut = tuning.update(policy, optimizer, batch, generator(), epochs=1, minibatches=1)
    lengths = batch.mask.sum(0)
    assert cut == pytest.approx((lengths[::2].sum() / lengths.sum()).item())
    log_probs, values, _ = read(other, batch.prompts, batch.tokens)
    loss = torch.zeros(())
    for t, n in batch.mask.nonzero().tolist():
        ratio, a = (log_probs[t, n] - batch.log_probs[t, n]).exp(), batch.advantages[t, n]
        error = values[t, n] - batch.returns[t, n]
        loss = loss - torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a) + 0.1 * 0.5 * error**2
    (loss / batch.mask.sum()).backward()
    gradients = [p.grad for p in other.parameters()]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    for p, q, g in zip(policy.parameters(), other.parameters(), gradients, strict=True):
        assert_close(p, q - 0.1 * g / length.clamp(min=1), atol=1e-6, rtol=1e-4)


def test_an_update_passes_over_its_batch_as_often_as_is_asked(model: LanguageModel) -> None:
    class Counting(torch.optim.SGD):
        steps = 0

        def step(self):
            self.steps += 1

    policy = deepcopy(model)
    batch = tuning.draw(policy, model, model, 6, generator(), kl_coef=0.1)
    for more, steps in (({}, 4), ({"epochs": 3, "minibatches": 5}, 15)):
        optimizer = Counting(policy.parameters(), 0.1)
        assert tuning.update(policy, optimizer, batch, generator(), **more) == 0
        assert optimizer.steps == steps


def test_a_response_and_one_that_is_worth_log_3_more_are_preferred_one_to_three(
    model: LanguageModel,
) -> None:
    worth = iter([math.log(3), 0.0])

    def judge(prompts, _tokens):
        return torch.full(prompts.shape, next(worth)), None

    pairs = tuning.preferences(model, 1000, generator(), judge=judge)
    first = tuning.sample(model, 1000, generator())[1]
    kept = int((pairs.preferred == first).all(0).sum())
    assert abs(kept - 750) < 5 * (1000 * 3 / 16) ** 0.5


def test_the_error_of_an_optimum_is_that_of_the_delta_method() -> None:
    scores, log_ratio = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.5, 0.0, -0.25])
    found = tuning.optimum_value(scores, log_ratio, kl_coef=2.0)
    w = [math.exp(s / 2 - x) for s, x in zip((0, 1, 3), (0.5, 0, -0.25), strict=True)]
    mean = sum(w) / 3
    spread = (sum((x - mean) ** 2 for x in w) / 2) ** 0.5
    assert found.value == pytest.approx(2 * math.log(mean))
    assert found.standard_error == pytest.approx(2 * spread / mean / 3**0.5)
    assert found.effective_samples == pytest.approx(sum(w) ** 2 / sum(x * x for x in w))
    # Of two prompts the variance of the mean is a quarter of the sum of variances.
    two = tuning.optimum_value(
        scores.repeat(2), log_ratio.repeat(2), torch.tensor([1, 1, 1, 2, 2, 2]), kl_coef=2.0
    )
    assert two.value == pytest.approx(found.value)
    assert two.standard_error == pytest.approx(found.standard_error / 2**0.5)


def test_what_is_measured_of_a_batch_by_hand() -> None:
    words = [reviews.NUMBER[word] for word in ("the", "plot", "is", "good", ".")]
    tokens = torch.tensor([words, [reviews.END] * 5]).T
    mask = response_mask(tokens, reviews.END)
    zeros = torch.zeros(5, 2)
    batch = tuning.Batch(
        prompts=torch.tensor([reviews.PROMPTS[0]] * 2),
        tokens=tokens,
        mask=mask,
        scores=torch.tensor([3.0, 4.0]),
        log_probs=zeros - 0.5,
        ref_log_probs=zeros - 0.75,
        rewards=zeros,
        values=zeros,
        advantages=zeros,
        returns=zeros,
    )
    # "the plot is good." is worth 1 and an empty review NO_REVIEW; 5 and 1 tokens of 1/4 nat.
    assert tuning.measure(batch) == pytest.approx(
        {"score": 3.5, "gold": (1 + reviews.NO_REVIEW) / 2, "grammatical": 0.5, "kl": 0.75}
    )


DEFAULTS = {
    tuning.pretrain: {"steps": 300, "batch": 32, "learning_rate": 4e-3},
    tuning.fit_reward_model: {"epochs": 4, "batch": 64, "learning_rate": 3e-3},
    tuning.draw: {"gae_lambda": 0.95},
    tuning.update: {"epochs": 2, "minibatches": 2, "clip_range": 0.2, "value_coef": 0.1},
    tuning.tune: {"updates": 60, "responses": 128, "learning_rate": 1e-3},
    LanguageModel.__init__: {"width": 64, "layers": 2, "heads": 4},
    generate: {"use_cache": True},
}


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda function: function.__qualname__)
def test_numbers_that_nobody_gives_are_those_that_the_chapter_relies_on(function) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in DEFAULTS[function]} == DEFAULTS[function]


def test_the_worth_of_words_and_of_what_is_no_review() -> None:
    words = ("superb", "decent", "poor", "dreadful")
    assert [reviews.WORTH[word] for word in words] == [2, 1, -1, -2]
    assert reviews.FACTOR == {"very": 1.5, "quite": 0.5, "not": -0.5}
    assert (reviews.REPEATED, reviews.NO_REVIEW) == (-2, -4)
    # Three clauses of four words and an adverb, "and" between them, and the full stop.
    assert (reviews.MAX_CLAUSES, reviews.LIMIT) == (3, 3 * 5 + 2 + 1)


# -- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: attend(torch.zeros(3, 2), torch.zeros(2, 2), torch.zeros(2, 2)), "keys has 2"),
        (lambda _: LanguageModel(9, 9, generator(), width=10), "width is 10, expected a multiple"),
        (lambda m: m(torch.zeros(4, dtype=torch.int64)), r"tokens has shape \(4,\)"),
        (lambda m: m(torch.zeros(20, 1, dtype=torch.int64)), "place 20, expected at most 19"),
        (lambda m: generate(m, torch.zeros(1, 1), 3, 0, generator()), r"prompts has shape"),
        (lambda m: generate(m, torch.tensor([1]), 0, 0, generator()), "limit is 0"),
        (lambda _: reviews.write(0, 0), "n is 0"),
        (lambda _: reviews.parse("book:", ["."]), "prompt is 'book:', expected one of film:"),
        (lambda _: reviews.judge(torch.zeros(2), torch.zeros(3, 4)), r"prompts has shape \(2,\)"),
        (lambda _: tuning.pretrain(0, steps=0), "steps is 0"),
        (lambda m: tuning.sample(m, 0, generator()), "n is 0"),
        (
            lambda m: tuning.update(
                m, None, tuning.draw(m, m, m, 2, generator(), kl_coef=0), generator(), minibatches=3
            ),
            "minibatches is 3, expected 1 to 2",
        ),
        (
            lambda _: tuning.optimum_value(torch.zeros(2), torch.zeros(2), kl_coef=0),
            "kl_coef is 0",
        ),
        (
            lambda _: tuning.optimum_value(torch.zeros(2), torch.zeros(3), kl_coef=1),
            r"log_ratio has shape \(3,\)",
        ),
        (
            lambda _: tuning.optimum_value(
                torch.zeros(2), torch.zeros(2), torch.zeros(3), kl_coef=1
            ),
            r"prompts has shape \(3,\)",
        ),
    ],
)
def test_refusals(model: LanguageModel, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)
