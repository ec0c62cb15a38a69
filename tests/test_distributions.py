"""Action distributions, against torch.distributions."""

import math

import pytest
import torch

from ppo_lib.distributions import Categorical, DiagonalGaussian, MultiCategorical

SHAPES = [(), (4,), (3, 2), (2, 3, 2)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_params(shape, size, seed=0):
    return torch.randn(*shape, size, generator=generator(seed), dtype=torch.float64)


def reference(dist, params):
    if dist is Categorical:
        return torch.distributions.Categorical(logits=params)
    mean, log_std = params.chunk(2, -1)
    return torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)


@pytest.mark.parametrize("dist", [Categorical, DiagonalGaussian])
@pytest.mark.parametrize("shape", SHAPES)
def test_log_prob_entropy_and_kl_equal_those_of_torch(dist, shape):
    old, new = random_params(shape, 6, seed=1), random_params(shape, 6, seed=2)
    actions = dist.sample(old, generator())
    expected = reference(dist, old)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(dist.log_prob(old, actions), expected.log_prob(actions), **close)
    torch.testing.assert_close(dist.entropy(old), expected.entropy(), **close)
    kl = torch.distributions.kl_divergence(expected, reference(dist, new))
    torch.testing.assert_close(dist.kl(old, new), kl, **close)
    torch.testing.assert_close(dist.kl(old, old), torch.zeros(shape).double(), **close)


@pytest.mark.parametrize("dist", [Categorical, DiagonalGaussian])
def test_gradients_equal_those_of_torch(dist):
    params = random_params((5,), 4).requires_grad_()
    actions = dist.sample(params.detach(), generator())
    expected = reference(dist, params)
    for found, right in [
        (dist.log_prob(params, actions), expected.log_prob(actions)),
        (dist.entropy(params), expected.entropy()),
    ]:
        gradients = [
            torch.autograd.grad(x.sum(), params, retain_graph=True) for x in (found, right)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_and_modes_have_the_shape_of_the_batch(shape):
    params = random_params(shape, 6)
    for actions in (Categorical.sample(params, generator()), Categorical.mode(params)):
        assert actions.shape == shape
        assert actions.dtype == torch.int64
    for actions in (DiagonalGaussian.sample(params, generator()), DiagonalGaussian.mode(params)):
        assert actions.shape == (*shape, 3)
        assert actions.dtype == params.dtype


def test_modes_of_literals():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 2.0]])
    assert Categorical.mode(logits).tolist() == [1, 0]
    params = torch.tensor([[0.5, -2.0, 7.0, 8.0]])
    assert DiagonalGaussian.mode(params).tolist() == [[0.5, -2.0]]


def test_categorical_frequencies_are_the_probabilities():
    probs = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    n = 20_000
    drawn = Categorical.sample(probs.log().expand(n, 2, 3), generator())
    for column in range(2):
        frequencies = torch.bincount(drawn[:, column], minlength=3) / n
        margin = 5 * (probs[column] * (1 - probs[column]) / n).sqrt()
        assert ((frequencies - probs[column]).abs() <= margin).all()


def test_categorical_samples_are_those_of_torchs_multinomial():
    # Which draws the same numbers, and refuses what is no probability at every call.
    params = random_params((500,), 4).float()
    expected = torch.multinomial(params.softmax(-1), 1, generator=generator(5)).squeeze(-1)
    assert torch.equal(Categorical.sample(params, generator(5)), expected)
    assert expected.unique().tolist() == [0, 1, 2, 3]
    # However the logits lie in memory, as a view of another layout say.
    assert torch.equal(Categorical.sample(params.T.contiguous().T, generator(5)), expected)


def test_gaussian_samples_have_its_mean_its_spread_and_no_correlation():
    n = 20_000
    mean, std = torch.tensor([3.0, -1.0]).double(), torch.tensor([0.5, 2.0]).double()
    drawn = DiagonalGaussian.sample(torch.cat([mean, std.log()]).expand(n, 4), generator())
    z = (drawn - mean) / std
    # Of standard normal numbers: mean 0 ± 1/√n, mean square 1 ± √(2/n), mean product 0 ± 1/√n.
    assert (z.mean(0).abs() < 5 / n**0.5).all()
    assert ((z**2).mean(0) - 1).abs().max() < 5 * (2 / n) ** 0.5
    assert z.prod(-1).mean().abs() < 5 / n**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_samples_are_torchs_normal_numbers_moved_and_stretched(dtype):
    params = random_params((50,), 4).to(dtype)
    drawn = DiagonalGaussian.sample(params, generator(3))
    normal = torch.randn(50, 2, generator=generator(3), dtype=dtype)
    expected = torch.distributions.Normal(params[:, :2], params[:, 2:].exp())
    torch.testing.assert_close((drawn - expected.mean) / expected.stddev, normal)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_times_are_those_of_float32_and_nothing_forbidden_is_drawn(dtype):
    # One of these 4 million times would be 0 in float16, and 0 / 0 would be drawn.
    forbidden = torch.tensor([0.0, -math.inf], dtype=dtype).expand(1 << 22, 2)
    assert not Categorical.sample(forbidden, generator(1)).any()
    params = torch.tensor([0.0, -1.0, -2.0]).expand(1000, 3)  # the same numbers in every dtype
    drawn = Categorical.sample(params.to(dtype), generator(5))
    assert torch.equal(drawn, Categorical.sample(params, generator(5)))


def test_what_is_drawn_in_float32_stays_what_it_was():
    params = torch.linspace(-2, 2, 12).reshape(4, 3)
    times = torch.empty(4, 3).exponential_(generator=generator(7))
    expected = (params.softmax(-1) / times).argmax(-1)
    assert torch.equal(Categorical.sample(params, generator(7)), expected)


@pytest.mark.parametrize("dist", [Categorical, DiagonalGaussian])
def test_the_generator_alone_decides_what_is_drawn(dist):
    params = random_params((50,), 6)
    torch.manual_seed(1)
    first = dist.sample(params, generator(3))
    torch.manual_seed(2)
    assert torch.equal(dist.sample(params, generator(3)), first)
    assert not torch.equal(dist.sample(params, generator(4)), first)


@pytest.mark.parametrize(
    ("dist", "actions", "message"),
    [
        (Categorical, torch.zeros(4, 1).long(), r"actions has shape \(4, 1\), expected \(4,\)"),
        (Categorical, torch.zeros(1).long(), r"actions has shape \(1,\), expected \(4,\)"),
        (DiagonalGaussian, torch.zeros(4), r"actions has shape \(4,\), expected \(4, 3\)"),
        (DiagonalGaussian, torch.zeros(4, 1), r"actions has shape \(4, 1\), expected \(4, 3\)"),
        (DiagonalGaussian, torch.zeros(3), r"actions has shape \(3,\), expected \(4, 3\)"),
    ],
)
def test_actions_of_another_shape_are_refused(dist, actions, message):
    with pytest.raises(ValueError, match=message):
        dist.log_prob(torch.zeros(4, 6), actions)


@pytest.mark.parametrize("dist", [Categorical, DiagonalGaussian])
def test_the_kl_of_two_shapes_is_refused(dist):
    with pytest.raises(ValueError, match=r"params has shape \(4, 1, 6\), expected \(4, 6\)"):
        dist.kl(torch.zeros(4, 6), torch.zeros(4, 1, 6))


@pytest.mark.parametrize("method", ["sample", "mode", "log_prob", "entropy", "kl"])
def test_means_without_their_standard_deviations_are_refused(method):
    odd = torch.zeros(4, 3)
    rest = {
        "sample": [torch.Generator()],
        "log_prob": [torch.zeros(4, 2)],
        "kl": [odd],
    }.get(method, [])
    with pytest.raises(ValueError, match="params has width 3, expected 2 D"):
        getattr(DiagonalGaussian, method)(odd, *rest)


def test_a_forbidden_action_adds_nothing_and_has_no_gradient():
    # Two actions of probability 1/2, and one that is forbidden: log 2; against 1/4 and 3/4
    # ½ log 2 + ½ log ⅔; what the old policy never did is no surprise, the other way it is.
    forbidden = torch.tensor([0.0, 0.0, -torch.inf], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([0.0, math.log(3), -torch.inf], dtype=torch.float64, requires_grad=True)
    allowed = torch.zeros(3, dtype=torch.float64)
    entropy = Categorical.entropy(forbidden)
    assert entropy.item() == pytest.approx(math.log(2))
    kl = Categorical.kl(forbidden, other)
    assert kl.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert Categorical.kl(forbidden, allowed).item() == pytest.approx(math.log(1.5))
    assert Categorical.kl(allowed, forbidden).item() == math.inf
    assert Categorical.kl(forbidden, forbidden).item() == 0.0
    (entropy + kl).backward()
    # d KL / d logits of the new policy is p_new - p_old.
    assert other.grad.tolist() == pytest.approx([-0.25, 0.25, 0.0])
    assert forbidden.grad.isfinite().all()
    assert forbidden.grad[2] == 0
    drawn = Categorical.sample(forbidden.detach().expand(1000, 3), torch.Generator().manual_seed(0))
    assert not (drawn == 2).any()


# ------------------------------------------------------------------ several choices at once

SIZES = (3, 1, 2, 4)
EVERY = torch.cartesian_prod(*(torch.arange(size) for size in SIZES))  # all 24 actions


def joint(params):
    """One distribution over all 24 actions: the product of the probabilities of the choices."""
    probs = params.new_ones(*params.shape[:-1], 1)
    for logits in params.split(SIZES, -1):
        probs = (probs.unsqueeze(-1) * logits.softmax(-1).unsqueeze(-2)).flatten(-2)
    return torch.distributions.Categorical(probs=probs)


@pytest.mark.parametrize("shape", [(), (4,), (3, 2)])
def test_several_choices_are_one_among_all_their_combinations(shape):
    dist, close = MultiCategorical(SIZES), {"rtol": 1e-12, "atol": 1e-12}
    old, new = random_params(shape, 10, seed=1), random_params(shape, 10, seed=2)
    listed = EVERY.expand(*shape, 24, 4).movedim(-2, 0)
    found = torch.stack([dist.log_prob(old, actions) for actions in listed], -1)
    torch.testing.assert_close(found, joint(old).logits, **close)
    torch.testing.assert_close(dist.entropy(old), joint(old).entropy(), **close)
    kl = torch.distributions.kl_divergence(joint(old), joint(new))
    torch.testing.assert_close(dist.kl(old, new), kl, **close)
    mode, drawn = dist.mode(old), dist.sample(old, generator())
    assert torch.equal(mode, EVERY[joint(old).probs.argmax(-1)])
    for actions in (mode, drawn):
        assert (actions.shape, actions.dtype) == ((*shape, 4), torch.int64)


def test_one_choice_alone_is_a_choice():
    params, dist = random_params((4,), 3), MultiCategorical([3])
    drawn = dist.sample(params, generator())
    assert drawn.shape == (4, 1)
    assert torch.equal(dist.log_prob(params, drawn), Categorical.log_prob(params, drawn[:, 0]))


def test_several_choices_are_drawn_independently_with_their_probabilities():
    n, params = 40_000, random_params((), 10, seed=3)
    drawn = MultiCategorical(SIZES).sample(params.expand(n, 10), generator(4))
    numbers = (drawn.unsqueeze(1) == EVERY).all(-1).float().argmax(-1)
    frequencies, probs = torch.bincount(numbers, minlength=24) / n, joint(params).probs
    assert ((frequencies - probs).abs() <= 5 * (probs * (1 - probs) / n).sqrt()).all()


def test_the_generator_alone_decides_what_several_choices_are():
    dist, params = MultiCategorical(SIZES), random_params((50,), 10)
    torch.manual_seed(1)
    first = dist.sample(params, generator(3))
    torch.manual_seed(2)
    assert torch.equal(dist.sample(params, generator(3)), first)


def test_gradients_of_several_choices_equal_those_of_their_combinations():
    params = random_params((5,), 10).requires_grad_()
    dist, numbers = MultiCategorical(SIZES), torch.tensor([0, 5, 23, 11, 7])
    for found, right in [
        (dist.log_prob(params, EVERY[numbers]), joint(params).log_prob(numbers)),
        (dist.entropy(params), joint(params).entropy()),
    ]:
        gradients = [torch.autograd.grad(x.sum(), params) for x in (found, right)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_what_is_not_of_the_sizes_is_refused():
    dist = MultiCategorical((3, 2))
    for call in (dist.mode, dist.entropy, lambda x: dist.sample(x, generator())):
        with pytest.raises(ValueError, match="params has width 6, expected 5"):
            call(torch.zeros(4, 6))
    with pytest.raises(ValueError, match=r"actions has shape \(4,\), expected \(4, 2\)"):
        dist.log_prob(torch.zeros(4, 5), torch.zeros(4).long())
    with pytest.raises(ValueError, match=r"params has shape \(4, 1, 5\), expected \(4, 5\)"):
        dist.kl(torch.zeros(4, 5), torch.zeros(4, 1, 5))
    for sizes in ([], [3, 0]):
        with pytest.raises(ValueError, match=r"sizes is \[.*\], expected at least one, each at"):
            MultiCategorical(sizes)
