"""The trainer: what it refuses, that it repeats itself to the bit, and that it learns."""

import dataclasses
import inspect
import math
import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.wrappers import FlattenObservation
from torch import nn

from ppo_lib import PPO, History, Policy, PPOConfig, evaluate
from ppo_lib.best import KeepBest
from ppo_lib.distributions import Categorical
from ppo_lib.evaluate import play_episodes
from ppo_lib.history import progress_bar
from ppo_lib.networks import CategoricalPolicy, GaussianPolicy, make_networks
from ppo_lib.ppo import Batch, minibatches

SMALL = PPOConfig(
    total_steps=128, num_envs=4, num_steps=8, minibatch_size=8, num_epochs=2, hidden_sizes=(8,)
)


BOX, TWO = Box(-2, 2, (1,)), Discrete(2)


class Constant(gym.Env):
    """Always the same observation; a step pays 1, and ``dies`` says when the world ends."""

    def __init__(self, dies=0, obs=BOX, action=TWO):
        self.observation_space, self.action_space, self.dies = obs, action, dies

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.count = 0
        return np.ones(1, dtype=np.float32), {}

    def step(self, action):
        self.count += 1
        assert self.action_space.contains(action)
        return np.ones(1, dtype=np.float32), 1.0, self.count == self.dies, False, {}


class Bandit(Constant):
    """One step an episode; -(a - 1/2)² is best at a = 1/2."""

    def __init__(self):
        super().__init__(dies=1, action=BOX)

    def step(self, action):
        obs, _, *ends = super().step(action)
        return obs, -float((action[0] - 0.5) ** 2), *ends


gym.register("tests/Limited-v0", Constant, max_episode_steps=5)
gym.register("tests/Constant-v0", Constant)
gym.register("tests/Bandit-v0", Bandit)


def learned(config=SMALL, env_id="CartPole-v1"):
    trainer = PPO(env_id, config)
    trainer.learn()
    return trainer


def assert_same_bits(first, second):
    for network in ("policy", "critic"):
        a, b = (getattr(trainer, network).state_dict() for trainer in (first, second))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert len(first.history) == len(second.history)
    for name in set(first.history.rows[0]) - {"steps_per_second"}:
        np.testing.assert_array_equal(first.history[name], second.history[name], name)
    assert first.history.episodes == second.history.episodes


# ------------------------------------------------------------------ the configuration

NAN, INF = float("nan"), float("inf")
REFUSED = {
    "total_steps": [0, -1, 1e5, "many", True, 511],
    "num_envs": [0, -1, 8.0, None, True],
    "vectorization": ["serial", 0, None, True],
    "num_steps": [0, -1, 64.0],
    "num_epochs": [0, -1, 4.0],
    "minibatch_size": [0, -1, 128.0, 513],
    "learning_rate": [0, -1e-3, NAN, INF, "fast", None, True, np.float32(1e-3), np.array(1e-3)],
    "anneal_learning_rate": [0, 1, None, "yes"],
    "gamma": [-0.01, 1.01, NAN, "high", None],
    "gae_lambda": [-0.01, 1.01, NAN, None],
    "loss": ["ppo", 1, None],
    "clip_range": [0, -0.2, NAN, INF, None],
    "anneal_clip_range": [0, 1, None, "yes"],
    "kl_coef": [-0.1, NAN, INF, None],
    "adaptive_kl_target": [0, -0.1, NAN, INF, None],
    "target_kl": [0, -0.1, NAN, INF, "no"],
    "normalize_advantages": [0, 1, None],
    "normalize_obs": [0, 1, None],
    "normalize_rewards": [0, 1, None],
    "vf_coef": [-0.1, NAN, INF, None],
    "value_clip_range": [0, -0.1, NAN, INF, "no"],
    "ent_coef": [-0.1, NAN, INF, -INF, 10**400, -(10**400), None],
    "max_grad_norm": [0, -0.5, NAN, INF, None],
    "hidden_sizes": [[64, 64], 64, (0,), (64, -1), (64.0,), (True,), None],
    "seed": [-1, 2**63, 0.0, None, True],
    "device": ["gpu", 0, None, *([] if torch.cuda.is_available() else ["cuda"])],
    "num_threads": [0, -1, 2.0, None, True, 1025],
}


def test_every_field_has_values_that_are_refused():
    assert list(REFUSED) == [field.name for field in dataclasses.fields(PPOConfig)]


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is ") as refusal:
        PPOConfig(**{name: value})
    assert str(refusal.value).startswith(f"{name} is {value!r}, expected ")


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"gamma": 0, "gae_lambda": 0, "vf_coef": 0, "ent_coef": 0},
        {"gamma": 1.0, "gae_lambda": 1.0},
        {"hidden_sizes": ()},
        {"total_steps": 512, "minibatch_size": 512},
        {"num_envs": 1, "num_steps": 2, "minibatch_size": 1, "total_steps": 2},
        {"num_threads": 1024},
    ],
)
def test_values_at_the_edge_are_taken(right):
    assert dataclasses.asdict(PPOConfig(**right)).items() >= right.items()


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PPOConfig().gamma = 0.5


def test_every_field_has_a_docstring():
    source = inspect.getsource(PPOConfig)
    for field in dataclasses.fields(PPOConfig):
        _, line, rest = source.partition(f"\n    {field.name}: ")
        assert line
        assert rest.splitlines()[1].strip().startswith('"""'), field.name


# ------------------------------------------------------------------ repeating itself


def test_two_trainers_with_one_seed_are_the_same_to_the_bit():
    config = dataclasses.replace(SMALL, total_steps=64)
    first = learned(config)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    second = learned(config)
    assert len(second.history) == 2
    assert_same_bits(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_gives_another_agent():
    first, other = learned(), learned(dataclasses.replace(SMALL, seed=1))
    assert not torch.equal(first.policy.net[0].weight, other.policy.net[0].weight)


def test_training_that_a_callback_stopped_goes_on_to_the_same_bits():
    stopped = PPO("CartPole-v1", SMALL)
    calls = []

    def at_the_second(trainer):
        calls.append(trainer.env_steps)
        return len(calls) == 2

    assert stopped.learn(at_the_second) is stopped.history
    assert calls == [32, 64]
    assert (len(stopped.history), stopped.env_steps) == (2, 64)
    stopped.learn()
    assert (len(stopped.history), stopped.env_steps) == (4, 128)
    assert_same_bits(stopped, learned())


def test_training_that_is_over_does_nothing_more():
    trainer = learned()
    before = [p.clone() for p in trainer.parameters]
    trainer.learn(lambda _: pytest.fail("an update after the end"))
    assert len(trainer.history) == 4
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))


# ------------------------------------------------------------------ updates


def test_before_the_first_gradient_step_the_ratio_is_1():
    whole = dataclasses.replace(SMALL, num_epochs=1, minibatch_size=32, clip_range=1e-4)
    history = learned(whole).history
    assert history["clip_fraction"].tolist() == [0.0] * 4
    # Rows of a batch are summed in another order than one by one: rounding is all that is left.
    assert np.abs(history["approx_kl"]).max() < 1e-11
    later = learned(dataclasses.replace(whole, num_epochs=4)).history
    assert (later["approx_kl"] > 1e-8).all()
    assert later["clip_fraction"].max() > 0


def test_the_learning_rate_falls_linearly_or_stays():
    config = dataclasses.replace(SMALL, learning_rate=1e-3)
    assert learned(config).history["learning_rate"].tolist() == pytest.approx(
        [1e-3, 0.75e-3, 0.5e-3, 0.25e-3]
    )
    constant = dataclasses.replace(config, anneal_learning_rate=False)
    assert learned(constant).history["learning_rate"].tolist() == [1e-3] * 4


@pytest.mark.parametrize(("total_steps", "updates"), [(32, 1), (63, 1), (64, 2), (100, 3)])
def test_total_steps_are_rounded_down_to_whole_updates(total_steps, updates):
    trainer = learned(dataclasses.replace(SMALL, total_steps=total_steps))
    assert len(trainer.history) == updates == trainer.config.num_updates
    assert trainer.env_steps == 32 * updates
    assert trainer.history["env_steps"].tolist() == [32 * (i + 1) for i in range(updates)]


def test_the_entropy_bonus_and_the_value_weight_do_what_they_say():
    config = dataclasses.replace(SMALL, total_steps=640)
    base = learned(config)
    spread = learned(dataclasses.replace(config, ent_coef=1.0))
    assert spread.history["entropy"][-5:].mean() > base.history["entropy"][-5:].mean()
    deaf = PPO("CartPole-v1", dataclasses.replace(config, vf_coef=0.0))
    before = [p.clone() for p in deaf.critic.parameters()]
    deaf.learn()
    assert all(torch.equal(a, b) for a, b in zip(before, deaf.critic.parameters(), strict=True))


@pytest.mark.parametrize("loss", ["clip", "kl"])
def test_the_loss_is_the_sum_of_its_three_parts_each_with_its_weight(loss):
    config = dataclasses.replace(SMALL, loss=loss, vf_coef=0.3, ent_coef=0.2, kl_coef=1.5)
    trainer = PPO(Constant, config)
    # Two actions, a ratio of 1 throughout, and an old policy that drew them with 1/2 each.
    trainer.policy = lambda obs: torch.tensor([math.log(0.8), math.log(0.2)]).expand(len(obs), 2)
    trainer.policy.dist = Categorical
    trainer.critic = lambda obs: torch.full((len(obs),), 2.0)
    two = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    batch = Batch(
        obs=torch.ones(2, 1),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([math.log(0.8), math.log(0.2)]),
        dist_params=two,
        values=torch.zeros(2),
        advantages=torch.tensor([1.0, 4.0]),
        returns=torch.tensor([1.0, 5.0]),
    )
    found, step = trainer.loss(batch)
    policy = -2.5
    if loss == "kl":
        policy += 1.5 * (0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2))
    critic = 0.5 * (1 + 9) / 2
    entropy = -0.8 * math.log(0.8) - 0.2 * math.log(0.2)
    assert found.item() == pytest.approx(policy + 0.3 * critic - 0.2 * entropy, rel=1e-5)
    assert step.policy_loss.tolist() == pytest.approx([policy] * 2, rel=1e-5)
    assert step.value_loss.tolist() == pytest.approx([critic] * 2, rel=1e-5)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_advantages_of_each_minibatch_are_standardised_if_asked_for(wanted):
    trainer, seen = PPO(Constant, dataclasses.replace(SMALL, normalize_advantages=wanted)), []
    trainer.gradient, real = lambda mb: (seen.append(mb.advantages), real(mb))[1], trainer.gradient
    trainer.update(trainer.collect())
    assert [len(advantages) for advantages in seen] == [8] * 8
    for advantages in seen:
        own = [advantages.mean().item(), advantages.std().item()]
        assert (own == pytest.approx([0, 1], abs=1e-5)) == wanted


def test_the_gradient_is_scaled_down_to_its_limit():
    # Adam's first moment after one step is a tenth of the gradient: as long as a tenth of the
    # limit, however long the gradient was.
    config = dataclasses.replace(SMALL, num_epochs=1, minibatch_size=32, max_grad_norm=1e-3)
    trainer = PPO("CartPole-v1", dataclasses.replace(config, total_steps=32))
    assert trainer.learn()["grad_norm"][0] > 0.01
    moments = [trainer.optimizer.state[p]["exp_avg"].flatten() for p in trainer.parameters]
    length = torch.cat(moments).norm().item()
    assert length == pytest.approx(1e-4, rel=0.01)


def test_adams_numbers_are_torchs_but_for_epsilon():
    (group,) = PPO("CartPole-v1", SMALL).optimizer.param_groups
    found = {name: group[name] for name in ("betas", "eps", "weight_decay", "amsgrad")}
    assert found == {"betas": (0.9, 0.999), "eps": 1e-5, "weight_decay": 0, "amsgrad": False}


@pytest.mark.parametrize(("batch_size", "size"), [(12, 4), (10, 4), (5, 5), (3, 1)])
def test_minibatches_hold_every_step_once(batch_size, size):
    # Column c holds 100 c + the number of the step, in one dimension or in two.
    generator, steps = torch.Generator().manual_seed(0), torch.arange(batch_size)
    batch = Batch(*(100 * c + (steps if c else steps[:, None]) for c in range(7)))
    first, second = (list(minibatches(batch, size, generator)) for _ in range(2))
    orders = []
    for parts in (first, second):
        assert all(type(part) is Batch for part in parts)
        lengths = [len(part.obs) for part in parts]
        assert lengths == [size] * (batch_size // size) + [batch_size % size] * (
            batch_size % size > 0
        )
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        assert columns[0].shape == (batch_size, 1)
        order = columns[0].flatten()
        assert sorted(order.tolist()) == steps.tolist()
        # A step's numbers stay together.
        assert all(torch.equal(x.flatten(), 100 * c + order) for c, x in enumerate(columns))
        orders.append(order.tolist())
    if batch_size > 5:
        assert orders[0] != orders[1]
    assert torch.equal(batch.actions, 100 + steps)


def test_annealing_counts_whole_updates_also_where_others_were_longer():
    # As of a loaded trainer that has another number of steps: one update of four, and a quarter.
    trainer = PPO("CartPole-v1", dataclasses.replace(SMALL, learning_rate=0.4))
    trainer.env_steps = 40
    assert trainer.learning_rate == pytest.approx(0.3)


def test_what_is_just_at_a_limit_is_within_it(monkeypatch):
    # A divergence of 1/4 in every minibatch, and ratios of 3/4.
    monkeypatch.setattr("ppo_lib.ppo.kl_k3", lambda x, _: torch.full_like(x, 0.25))
    monkeypatch.setattr("ppo_lib.ppo.importance_ratio", lambda x, _: torch.full_like(x, 0.75))
    for limit, steps, share in ((0.25, 8, 0.0), (0.24, 1, 1.0)):
        config = dataclasses.replace(SMALL, total_steps=32, target_kl=limit, clip_range=limit)
        history = learned(config).history
        assert history["gradient_steps"].tolist() == [steps]
        assert history["clip_fraction"].tolist() == [share]


@pytest.mark.parametrize("name", ["learning_rate", "clip_range"])
def test_annealing_follows_the_updates_and_not_the_steps_that_are_left_over(name):
    # Three updates of 32 of the 100 steps: a third less each time, whatever the rest of 4.
    changes = {"total_steps": 100, name: 0.3, f"anneal_{name}": True}
    history = learned(dataclasses.replace(SMALL, **changes)).history
    assert history[name].tolist() == pytest.approx([0.3, 0.2, 0.1], rel=1e-12)


# ------------------------------------------------------------------ history


def test_history_has_the_documented_columns():
    history = learned().history
    columns = {
        "env_steps",
        "policy_loss",
        "value_loss",
        "entropy",
        "approx_kl",
        "clip_fraction",
        "grad_norm",
        "gradient_steps",
        "explained_variance",
        "learning_rate",
        "clip_range",
        "steps_per_second",
        "episode_return",
        "episode_length",
    }
    assert all(row.keys() == columns for row in history.rows)
    assert columns == {name for name in columns if f"``{name}``" in History.__doc__}
    for name in columns:
        assert history[name].shape == (4,)
        assert history[name].dtype == np.float64
    with pytest.raises(KeyError, match="name is 'return', expected one of"):
        history["return"]


def test_history_of_episodes_of_known_length():
    # Four environments with a limit of 5 and a reward of 1: in rollouts of 8 steps, cuts fall
    # at steps 5, 10, 15, 20, … 30: in 1, 2, 1 and 2 of the rollouts' steps.
    trainer = learned(SMALL, "tests/Limited-v0")
    assert trainer.history["episode_return"].tolist() == [5.0] * 4
    assert trainer.history["episode_length"].tolist() == [5.0] * 4
    ended = [(32, 5.0, 5)] * 4 + [(64, 5.0, 5)] * 8 + [(96, 5.0, 5)] * 4 + [(128, 5.0, 5)] * 8
    assert trainer.history.episodes == ended
    assert trainer.history.recent_return() == 5.0


def test_history_without_an_ended_episode_says_nan():
    history = learned(SMALL, "tests/Constant-v0").history
    assert np.isnan(history["episode_return"]).all()
    assert math.isnan(history.recent_return())
    assert history.episodes == []


def test_a_bar_is_told_of_every_update(monkeypatch):
    told = []

    class Bar:
        def __init__(self, *numbers, wanted):
            told.append((*numbers, wanted))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            told.append("over")

        def update(self, steps):
            told.append(steps)

        def set_postfix(self, **words):
            told.append(words)

    monkeypatch.setattr("ppo_lib.ppo.progress_bar", Bar)
    trainer = PPO("tests/Limited-v0", dataclasses.replace(SMALL, total_steps=64))
    trainer.learn(lambda _: True)
    trainer.learn(show_progress=False)
    update = [32, {"episode_return": "5.0"}]
    assert told == [(64, 0, True), *update, "over", (64, 32, False), *update, "over"]


def test_the_recent_return_is_the_mean_of_the_last_episodes():
    history = History()
    history.episodes = [(0, float(i), 1) for i in range(30)]
    assert history.recent_return() == sum(range(10, 30)) / 20
    assert history.recent_return(3) == 28


@pytest.mark.parametrize("kind", ["nowhere", "terminal", "notebook"])
def test_a_bar_knows_where_it_begins_and_ends(kind, monkeypatch):
    made = []
    monkeypatch.setattr("tqdm.auto.tqdm", lambda **more: made.append(more) or "a widget")
    monkeypatch.setattr("ppo_lib.history.tqdm", lambda **more: made.append(more) or "a bar")
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: kind == "terminal"))
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if kind == "notebook":
        monkeypatch.setitem(sys.modules, "ipykernel", None)
    steps = {"total": 10, "initial": 4, "unit": "step"}
    widget = kind == "notebook"
    assert progress_bar(10, 4, wanted=True) == ("a widget" if widget else "a bar")
    assert made.pop() == (steps if widget else {**steps, "disable": kind == "nowhere"})
    assert progress_bar(10, 4, wanted=False) == "a bar"
    assert made.pop() == {**steps, "disable": True}
    monkeypatch.setenv("TQDM_DISABLE", "1")
    progress_bar(10, 4, wanted=True)
    assert made.pop() == {**steps, "disable": True}


def test_training_has_the_threads_of_its_settings_and_gives_them_back():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        config = dataclasses.replace(SMALL, num_threads=2)
        PPO("CartPole-v1", config).learn(lambda _: seen.append(torch.get_num_threads()))
        assert seen == [2] * config.num_updates
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_history_is_drawn_in_six_panels_of_its_columns():
    history = learned().history
    figure = history.plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "episode return",
        "explained variance",
        "entropy (nats)",
        "approximate KL (nats)",
        "clip fraction",
        "value loss",
    ]
    # All panels share their axis, which the last of each column names.
    assert [axes.get_xlabel() for axes in figure.axes] == 4 * [""] + 2 * ["environment steps"]
    assert all(figure.axes[0].get_shared_x_axes().joined(figure.axes[0], x) for x in figure.axes)
    # Two panels beside each other, which make room for their words; few numbers at each.
    assert figure.get_size_inches().tolist() == [5.2, 6]
    assert type(figure.get_layout_engine()).__name__ == "ConstrainedLayoutEngine"
    figure.draw_without_rendering()
    for axes in figure.axes:
        axes.set(xlim=(0, 9.9), ylim=(0, 9.9))
        assert axes.get_xticks().tolist() == [0, 2.5, 5, 7.5, 10]
    (line,) = figure.axes[2].lines
    assert line.get_xdata().tolist() == [32, 64, 96, 128]
    assert line.get_ydata().tolist() == history["entropy"].tolist()


# ------------------------------------------------------------------ environments


def test_networks_fit_the_spaces():
    generator = torch.Generator().manual_seed(0)

    def networks(env_id):
        env = gym.make(env_id)
        return make_networks(env.observation_space, env.action_space, (8,), generator)

    policy, critic = networks("CartPole-v1")
    assert isinstance(policy, CategoricalPolicy)
    assert policy(torch.zeros(5, 4)).shape == (5, 2)
    assert critic(torch.zeros(5, 4)).shape == (5,)
    # Nothing that was not asked for is put before the layers.
    for network in (policy, critic):
        assert [type(layer) for layer in network.net] == [nn.Linear, nn.Tanh, nn.Linear]
    continuous, _ = networks("Pendulum-v1")
    assert isinstance(continuous, GaussianPolicy)
    assert continuous(torch.zeros(5, 3)).shape == (5, 2)


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ({"obs": MultiDiscrete([2, 2])}, "observation_space is MultiDiscrete"),
        ({"obs": Box(-1, 1, (2, 2))}, "observation_space is Box"),
        ({"action": MultiDiscrete([[2, 2]])}, "action_space is MultiDiscrete"),
        ({"action": Discrete(2, start=1)}, r"action_space is Discrete\(2, start=1\)"),
    ],
)
def test_spaces_that_the_networks_do_not_fit_are_refused(spaces, message):
    class Odd(Constant):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed, options=options)
            return self.observation_space.sample(), {}

    with pytest.raises(ValueError, match=message):
        PPO(lambda: Odd(**spaces), SMALL)


@pytest.mark.parametrize("action", [MultiDiscrete([[2, 2]]), Box(-1, 1, (2, 2)), Box(-1, 1, ())])
def test_networks_alone_refuse_actions_of_other_dimensions_than_one(action):
    with pytest.raises(ValueError, match=r"^action_space is .*, expected a Discrete, or a Multi"):
        make_networks(BOX, action, (8,), torch.Generator())


def test_states_by_number_are_learned_from_when_flattened():
    # The features that it gives are integers.
    trainer = PPO("ppo_lib/Ridge-v0", SMALL, wrappers=[FlattenObservation])
    assert len(trainer.learn()) == 4


# ------------------------------------------------------------------ learning


def test_a_continuous_bandit_is_learned():
    config = PPOConfig(
        total_steps=4_000,
        num_envs=16,
        num_steps=8,
        minibatch_size=64,
        learning_rate=1e-2,
        hidden_sizes=(8,),
    )
    trainer = learned(config, "tests/Bandit-v0")
    with torch.no_grad():
        mean, log_std = trainer.policy(torch.ones(1)).tolist()
    assert mean == pytest.approx(0.5, abs=0.1)
    assert math.exp(log_std) < 0.5
    assert evaluate(trainer.policy, "tests/Bandit-v0", num_episodes=1, seed=0).item() > -0.01


# ------------------------------------------------------------------ what the history says


def test_the_history_weighs_every_row_alike_where_minibatches_differ_in_size():
    # Ten rows in minibatches of eight and of two: the losses are means over the ten.
    config = PPOConfig(
        total_steps=10,
        num_envs=1,
        num_steps=10,
        minibatch_size=8,
        num_epochs=1,
        normalize_advantages=False,
    )
    with PPO("CartPole-v1", config) as trainer:
        real, steps = trainer.gradient, []

        def watched(minibatch):
            steps.append(real(minibatch))
            return steps[-1]

        trainer.gradient = watched
        history = trainer.learn(show_progress=False)
    eight, two = steps
    assert (len(eight.log_probs), len(two.log_probs)) == (8, 2)
    for name in ("policy_loss", "value_loss"):
        first, second = (float(getattr(step, name)[0]) for step in steps)
        assert history[name][0] == pytest.approx((8 * first + 2 * second) / 10, rel=1e-5)
        assert abs(first - second) > 1e-3  # so that another mean would be seen


def test_steps_per_second_are_those_of_the_whole_update(monkeypatch):
    clock = iter([10.0, 12.0, 20.0, 28.0])
    monkeypatch.setattr("ppo_lib.ppo.time.perf_counter", lambda: next(clock))
    config = dataclasses.replace(SMALL, total_steps=64)
    with PPO(Constant, config) as trainer:
        history = trainer.learn(show_progress=False)
    # 32 steps in 2 seconds, then 32 in 8.
    assert history["steps_per_second"].tolist() == [16.0, 4.0]


# ------------------------------------------------------------------ without being asked

DEFAULTS = {
    evaluate: {"num_episodes": 20, "deterministic": True},
    play_episodes: {"max_steps": 100_000},
    Policy.act: {"deterministic": True},
    PPO.learn: {"show_progress": True},
    KeepBest: {"num_episodes": 20, "column": "evaluation", "seed": 1_000_000},
}


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda function: function.__qualname__)
def test_numbers_that_nobody_gives_are_those_that_the_pages_rely_on(function):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in DEFAULTS[function]} == DEFAULTS[function]
