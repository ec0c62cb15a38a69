"""Silent bugs, nearly all reported from real projects, each planted in a few lines.

Beside them stand two worlds so small that their effect is seen.

A bug is a function that stands in for one of the library's while `planted` holds it there, with
the arguments of the right one.  Nothing else of the trainer changes.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from ppo_lib import audit, ppo
from ppo_lib.book.evidence import read_runs
from ppo_lib.config import PPOConfig, settings
from ppo_lib.distributions import Categorical, DiagonalGaussian
from ppo_lib.envs import env_actions
from ppo_lib.networks import CategoricalPolicy
from ppo_lib.objectives import clipped_surrogate_loss, importance_ratio, normalize_advantages
from ppo_lib.policies import Policy
from ppo_lib.ppo import PPO, Batch
from ppo_lib.returns import gae, td_errors
from ppo_lib.rollout import Rollout

# ---------------------------------------------------------------------------------- worlds


class _Arrays(VectorEnv):
    """N copies of a world, cut after ``limit`` steps; each resets at the step after its end.

    A subclass sets the spaces and ``limit``, and says where copies start, how they move, what
    that pays and ends, and what they observe.
    """

    limit: int
    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New episodes in all copies."""
        self.dice = np.random.default_rng(seed)
        self.place = self.starts()
        self.count = np.zeros(self.num_envs)
        self.over = np.zeros(self.num_envs, dtype=bool)
        return self.seen(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step in each copy; where the last one was an end, a reset instead."""
        resets = self.over
        place, rewards, died = self.moved(actions)
        place[resets] = self.starts()[resets]
        self.place = place
        self.count = np.where(resets, 0, self.count + 1)
        died, rewards = died & ~resets, np.where(resets, 0.0, rewards)
        cut = (self.count == self.limit) & ~died
        self.over = died | cut
        return self.seen(), rewards, died, cut, {}


class Ledge(_Arrays):
    """Eight cells in a row: a ledge at the left end, and at the right end a well.

    Every step that ends in the last cell pays 1, for ever.  A jump from the ledge pays 2 and
    is the end.  An episode starts in any cell and is cut after eight steps, but the world goes
    on: from every cell the well is worth the way.
    """

    CELLS, GAMMA, JUMP, limit = 8, 0.9, 2.0, 8
    single_observation_space = gym.spaces.Box(0, 1, (CELLS,))
    single_action_space = gym.spaces.Discrete(2)

    def starts(self) -> np.ndarray:
        """Any cell, ``[N]``."""
        return self.dice.integers(0, self.CELLS, self.num_envs)

    def moved(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Left (0) or right (1) by one cell: places, rewards and deaths."""
        jumped = (self.place == 0) & (actions == 0)
        place = (self.place + 2 * actions - 1).clip(0, self.CELLS - 1)
        return place, np.where(jumped, self.JUMP, place == self.CELLS - 1), jumped

    def seen(self) -> np.ndarray:
        """``[N, 8]``, 1 at the cell."""
        return np.eye(self.CELLS, dtype=np.float32)[self.place]

    @classmethod
    def worth(cls, right: Tensor) -> float:
        """The exact expected return of the world without a limit, discounted, from any cell.

        Args:
            right: ``[8]`` float64, the probability of going right in each cell.
        """
        n = cls.CELLS
        step = torch.diag(right[:-1], 1) + torch.diag(1 - right[1:], -1)
        step[-1, -1] = right[-1]
        pays = step[:, -1].clone()
        pays[0] += cls.JUMP * (1 - right[0])
        return float(torch.linalg.solve(torch.eye(n) - cls.GAMMA * step, pays).mean())


class Puck(_Arrays):
    """A puck on a table, pushed by two forces of at most 1; a step costs the way to the middle.

    From far away the best push is the hardest one, so that many draws are beyond the bounds.
    """

    limit = 10
    single_observation_space = gym.spaces.Box(-9, 9, (2,))
    single_action_space = gym.spaces.Box(-1, 1, (2,))

    def starts(self) -> np.ndarray:
        """Anywhere on the table, ``[N, 2]``."""
        return self.dice.uniform(-1, 1, (self.num_envs, 2))

    def moved(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By a fifth of the force: places, rewards and deaths, of which there are none."""
        place = self.place + 0.2 * actions
        return place, -np.linalg.norm(place, axis=-1), np.zeros(self.num_envs, dtype=bool)

    def seen(self) -> np.ndarray:
        """``[N, 2]``, the place."""
        return self.place.astype(np.float32)


@dataclass(frozen=True)
class Task:
    """Where a bug is tried: an environment, settings, and what is measured after each update."""

    env: str | Callable[[int], VectorEnv]
    config: PPOConfig
    score: Callable[[PPO], float]
    says: str  #: what the score is, for an axis


def _recent(trainer: PPO) -> float:
    return trainer.history.recent_return()


@torch.no_grad()
def _worth(trainer: PPO) -> float:
    return Ledge.worth(trainer.policy(torch.eye(Ledge.CELLS)).double().softmax(-1)[:, 1])


_SMALL = PPOConfig(
    total_steps=8192,
    num_envs=16,
    num_steps=32,
    minibatch_size=256,
    learning_rate=1e-2,
    gamma=Ledge.GAMMA,
    hidden_sizes=(32,),
)
TASKS = {
    "CartPole": Task(
        "CartPole-v1",
        PPOConfig(**{**vars(settings("CartPole-v1")), "total_steps": 20_480}),
        _recent,
        "return of the last 20 episodes",
    ),
    "ledge": Task(Ledge, _SMALL, _worth, "exact discounted return"),
    "puck": Task(Puck, _SMALL, _recent, "return of the last 20 episodes"),
}


def curve(task: str, *, seed: int, **changes: Any) -> list[float]:
    """Train, with whatever is planted, and give the task's score after each update.

    A trainer that refuses to go on keeps its last score.
    """
    where = TASKS[task]
    config = PPOConfig(**{**vars(where.config), "seed": seed, **changes})
    scores: list[float] = []
    env = where.env if isinstance(where.env, str) else where.env(config.num_envs)
    with PPO(env, config) as trainer:
        try:
            trainer.learn(lambda t: scores.append(where.score(t)), show_progress=False)
        except ValueError:  # which the library raises where a gradient is not finite
            scores += [scores[-1] if scores else 0.0] * (config.num_updates - len(scores))
    return scores


# ------------------------------------------------------------------------------------ bugs


@dataclass(frozen=True)
class Bug:
    """A bug, where it is planted, and what it breaks."""

    name: str
    place: str  #: what it stands in for, "ppo.gae" say
    wrong: Callable[..., Any]
    breaks: tuple[str, ...]  #: the labels of equations
    check: str  #: the function of `ppo_lib.audit` that finds it; none for one that hides from all
    seen: tuple[str, ...]  #: where one like it was reported, "owner/name#number"
    tasks: tuple[str, ...]
    changes: dict[str, Any]  #: of the settings, right run and wrong


BUGS: dict[str, Bug] = {}
_OWNERS = {
    "ppo": ppo,
    "PPO": PPO,
    "Categorical": Categorical,
    "DiagonalGaussian": DiagonalGaussian,
    "CategoricalPolicy": CategoricalPolicy,
}
Function = Callable[..., Any]


def bug(
    name: str,
    place: str,
    *,
    breaks: str,
    check: str,
    seen: str,
    tasks: tuple[str, ...] = ("ledge",),
    **changes: Any,
) -> Callable[[Function], Function]:
    """Enter a function in `BUGS`."""

    def enter(wrong: Function) -> Function:
        labels, reports = tuple(breaks.split()), tuple(seen.split())
        BUGS[name] = Bug(name, place, wrong, labels, check, reports, tasks, changes)
        return wrong

    return enter


def planted(name: str) -> AbstractContextManager[Any]:
    """The library with a bug in it, until the block ends; without one for an empty name."""
    if not name:
        return patch.dict(BUGS)
    owner, _, attribute = BUGS[name].place.partition(".")
    return patch.object(_OWNERS[owner], attribute, BUGS[name].wrong)


def right_with(changes: dict[str, Any]) -> str:
    """The name of the right runs with some settings changed; those beside a bug have its own."""
    return ", ".join(["right", *(f"{key} {value}" for key, value in changes.items())])


#: Right runs that stand beside no bug: a task, and what is changed of its settings.
CONTROLS: list[tuple[str, dict[str, Any]]] = [("CartPole", {"clip_range": 1000})]


_LOSS = "ppo.clipped_surrogate_loss"
_collect, _minibatches = PPO.collect, PPO._minibatches_of_all_epochs
_entropy, _kl, _log_prob = Categorical.entropy, Categorical.kl, DiagonalGaussian.log_prob


@bug(
    "a lost minus sign",
    _LOSS,
    breaks="eq-e13",
    check="check_my_policy_loss",
    seen="WangYuxiang8/RL-demo#1",
)
def lost_minus(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip_range: float
) -> Tensor:
    """The objective itself is minimised."""
    return -clipped_surrogate_loss(log_probs, old_log_probs, advantages, clip_range=clip_range)


@bug(
    "max for min",
    _LOSS,
    breaks="eq-e13",
    check="check_my_policy_loss",
    seen="jvmncs/safe-grid-agents#28",
    tasks=("ledge", "CartPole"),
)
def max_for_min(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip_range: float
) -> Tensor:
    """The larger of the two terms, so that the clip only ever binds where it should not."""
    ratio = importance_ratio(log_probs, old_log_probs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.max(ratio * advantages, clipped * advantages).mean()


@bug(
    "min before the product",
    _LOSS,
    breaks="eq-e13",
    check="check_my_policy_loss",
    seen="takuseno/ppo#3",
)
def min_before_product(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip_range: float
) -> Tensor:
    """The smaller ratio, not the smaller product: for Â < 0 the clip is at the wrong end."""
    ratio = importance_ratio(log_probs, old_log_probs)
    return -(ratio.clamp(max=1 + clip_range) * advantages).mean()


@bug(
    "p and q swapped",
    _LOSS,
    breaks="eq-e8",
    check="check_my_policy_loss",
    seen="",
)
def swapped(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip_range: float
) -> Tensor:
    """The old probability over the new one."""
    ratio = (old_log_probs - log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.min(ratio * advantages, clipped * advantages).mean()


@bug(
    "the old log-probability recomputed",
    _LOSS,
    breaks="eq-e8",
    check="check_my_policy_loss",
    seen="tensorforce/tensorforce#312",
)
def recomputed(log_probs: Tensor, _: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The ratio of the new policy to itself: always 1, and never clipped."""
    return clipped_surrogate_loss(log_probs, log_probs, advantages, clip_range=clip_range)


@bug(
    "the KL the wrong way",
    "Categorical.kl",
    breaks="eq-e12",
    check="check_my_kl",
    seen="openai/spinningup#264",
    loss="kl",
)
def kl_the_wrong_way(old_params: Tensor, params: Tensor) -> Tensor:
    """KL(new ‖ old)."""
    return _kl(params, old_params)


@bug(
    "the entropy punished",
    "Categorical.entropy",
    breaks="eq-ppo-loss",
    check="check_my_entropy",
    seen="PKU-Alignment/omnisafe#133 DLR-RM/stable-baselines3#127 rlworkgroup/garage#628",
    ent_coef=0.02,
)
def entropy_punished(params: Tensor) -> Tensor:
    """Σ p log p, without the minus."""
    return -_entropy(params)


@bug(
    "(B,) against (B, 1)",
    "ppo.value_loss",
    breaks="eq-value-loss",
    check="check_my_value_loss",
    seen="RLinf/RLinf#1568 automl/Mighty#126",
    tasks=("ledge", "CartPole"),
)
def broadcast(values: Tensor, returns: Tensor, *_: Any, **__: Any) -> Tensor:
    """Every value against every return: ``[B, B]`` errors."""
    return 0.5 * ((values[:, None] - returns) ** 2).mean()


@bug(
    "the critic's target is its own value",
    "ppo.gae",
    breaks="eq-value-loss",
    check="check_my_gae",
    seen="vwxyzjn/cleanrl#337",
)
def own_value(rewards: Tensor, values: Tensor, *rest: Tensor, **numbers: float) -> Any:
    """Advantages that are still 0, plus the values."""
    return gae(rewards, values, *rest, **numbers)[0], values


@bug(
    "no flag in GAE",
    "ppo.gae",
    breaks="eq-d24 eq-d25",
    check="check_my_gae",
    seen="walkinglabs/hands-on-modern-rl#63",
    tasks=("ledge", "CartPole"),
)
def no_flag(
    rewards: Tensor, values: Tensor, next_values: Tensor, *flags: Tensor, **numbers: float
) -> Any:
    """Neither the value after a death is masked nor the recursion cut."""
    never = torch.zeros_like(flags[0])
    return gae(rewards, values, next_values, never, never, **numbers)


@bug(
    "a time limit as a death",
    "ppo.gae",
    breaks="eq-d24",
    check="check_my_gae",
    seen="Toni-SM/skrl#449 vwxyzjn/cleanrl#198",
)
def limit_as_death(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    **numbers: float,
) -> Any:
    """One flag for two endings."""
    done = terminated | truncated
    return gae(rewards, values, next_values, done, done, **numbers)


@bug(
    "the next episode leaks in",
    "ppo.gae",
    breaks="eq-d25",
    check="check_my_gae",
    seen="vietnh1009/Super-mario-bros-PPO-pytorch#21 Toni-SM/skrl#449",
)
def leak(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    _: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Any:
    """The TD errors are right, but the recursion is not cut where an episode ends."""
    delta = td_errors(rewards, values, next_values, terminated, gamma=gamma)
    return _backward(delta, torch.full_like(delta, gamma * gae_lambda), values)


@bug(
    "γ lost in the recursion",
    "ppo.gae",
    breaks="eq-gae-recursion",
    check="check_my_gae",
    seen="",
)
def gamma_lost(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Any:
    """λ alone between one step and the next."""
    delta = td_errors(rewards, values, next_values, terminated, gamma=gamma)
    goes_on = (~(terminated | truncated)).to(delta.dtype)
    return _backward(delta, gae_lambda * goes_on, values)


@bug(
    "the recursion reads its own entry",
    "ppo.gae",
    breaks="eq-gae-recursion",
    check="check_my_gae",
    seen="4kasha/CartPole_PPO#1",
)
def reads_itself(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    *_: Tensor,
    gamma: float,
    **__: float,
) -> Any:
    """Â_t = γλ Â_t + δ_t, and Â_t was 0: one TD error, whatever λ is."""
    delta = td_errors(rewards, values, next_values, terminated, gamma=gamma)
    return delta, delta + values


@bug(
    "the flags of the step after",
    "ppo.gae",
    breaks="eq-d24 eq-d25",
    check="check_my_gae",
    seen="RoboVerseOrg/RoboVerse#814 DLR-RM/stable-baselines3#105 anthonytorlucci/rlevo#342",
)
def flags_of_the_step_after(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    **numbers: float,
) -> Any:
    """Every ending is taken one step too early; only the last row has its own flags."""
    late = (torch.cat([x[1:], x[-1:]]) for x in (terminated, truncated))
    return gae(rewards, values, next_values, *late, **numbers)


@bug(
    "the value after the reset",
    "PPO.collect",
    breaks="eq-d13",
    check="check_my_rollout",
    seen="google-deepmind/mujoco_playground#305",
)
def value_after_the_reset(self: PPO) -> Rollout:
    """At an ending, the first observation of the next episode for the last of this one."""
    rollout = _collect(self)
    seen = rollout.next_obs.clone()
    ended = (rollout.terminated | rollout.truncated)[:-1]
    seen[:-1][ended] = rollout.next_obs[1:][ended]
    return rollout._replace(next_obs=seen)


@bug(
    "the reset trained on as a step",
    "PPO.collect",
    breaks="eq-a3",
    check="check_my_rollout",
    seen="Denys88/rl_games#362",
)
def reset_as_a_step(self: PPO) -> Rollout:
    """A row whose action was ignored, from the last episode's end to the next one's start."""
    rollout = _collect(self)
    return rollout._replace(mask=torch.ones_like(rollout.mask))


@bug(
    "the observation overwritten",
    "PPO.collect",
    breaks="eq-a3",
    check="check_my_rollout",
    seen="Motphys/UniLab#799 leggedrobotics/rsl_rl#222",
)
def observation_overwritten(self: PPO) -> Rollout:
    """What was stored is the environment's own array, which a step has changed since."""
    rollout = _collect(self)
    return rollout._replace(obs=rollout.next_obs)


@bug(
    "the clipped action stored",
    "PPO.collect",
    breaks="eq-e8",
    check="check_my_rollout",
    seen="thu-ml/tianshou#312 kuds/mesozoic-labs#408",
    tasks=("puck",),
)
def clipped_action(self: PPO) -> Rollout:
    """The action as the environment took it, and its log-probability, as if it had been drawn."""
    rollout = _collect(self)
    actions = torch.as_tensor(env_actions(rollout.actions, self.envs))
    log_probs = self.policy.dist.log_prob(rollout.dist_params, actions)
    return rollout._replace(actions=actions, log_probs=log_probs)


@bug(
    "mean for sum over the action",
    "DiagonalGaussian.log_prob",
    breaks="eq-e8",
    check="check_my_log_prob",
    seen="jannerm/ddpo#10 yifan123/flow_grpo#143",
    tasks=("puck",),
)
def mean_for_sum(params: Tensor, actions: Tensor) -> Tensor:
    """The mean over the D numbers of an action: the ratio's D-th root."""
    return _log_prob(params, actions) / actions.shape[-1]


@bug(
    "a minibatch of one normalised",
    "ppo.normalize_advantages",
    breaks="eq-ppo-loss",
    check="check_my_normalize",
    seen="tensorflow/agents#651",
    tasks=("ledge",),
    minibatch_size=1,
    num_steps=8,
    num_epochs=1,
    total_steps=1024,
)
def one_normalised(advantages: Tensor) -> Tensor:
    """Less its own mean a single advantage is 0: nothing is learned, and nothing is said."""
    return (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)


@bug(
    "advantages from the new critic",
    "PPO._minibatches_of_all_epochs",
    breaks="eq-e13",
    check="",
    seen="michaelnny/deep_rl_zoo#5 SwarmRL/SwarmRL#125",
    tasks=("ledge", "CartPole"),
)
def from_the_new_critic(self: PPO, batch: Batch) -> Iterator[Batch]:
    """The baseline has been trained on the very returns that it is subtracted from."""
    for minibatch in _minibatches(self, batch):
        with torch.no_grad():
            late = minibatch.returns - self.critic(minibatch.obs)
        yield minibatch._replace(advantages=normalize_advantages(late))


@bug(
    "the critic forgotten",
    "PPO._make_optimizer",
    breaks="eq-ppo-update",
    check="check_my_trainer",
    seen="AgileRL/AgileRL#154",
)
def critic_forgotten(self: PPO) -> torch.optim.Adam:
    """The optimizer was given the policy's parameters alone."""
    return torch.optim.Adam(self.policy.parameters(), self.config.learning_rate, eps=1e-5)


@bug(
    "a layer that the optimizer does not see",
    "PPO._follow_parameters",
    breaks="eq-ppo-update",
    check="check_my_trainer",
    seen="SforAiDl/genrl#315",
)
def unseen_layer(self: PPO) -> None:
    """The policy's last layer is replaced after the optimizer was made."""
    if self.env_steps == 0:
        self.policy.net[-1] = copy.deepcopy(self.policy.net[-1])


@bug(
    "softmax twice",
    "CategoricalPolicy.forward",
    breaks="eq-softmax-score",
    check="check_my_trainer",
    seen="ekapolc/RL_course_2019#6",
)
def softmax_twice(self: Policy, obs: Tensor) -> Tensor:
    """Probabilities where logits are expected: of two actions none can pass 73 percent."""
    return self.net(obs).softmax(-1)


def _backward(delta: Tensor, factors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages, in the place of the TD errors, and returns."""
    for t in range(len(delta) - 2, -1, -1):
        delta[t] += factors[t] * delta[t + 1]
    return delta, delta + values


# ------------------------------------------------------------------------------- the audit


def _library_rollout(make_env: Callable[[], gym.Env], num_steps: int) -> dict[str, Tensor]:
    """What the trainer learns from, of one environment that resets at the next step."""
    config = PPOConfig(
        total_steps=num_steps, num_envs=1, num_steps=num_steps, minibatch_size=num_steps
    )
    with PPO(SyncVectorEnv([make_env]), config) as trainer:
        rollout = trainer.collect()
    return {name: x[rollout.mask] for name, x in rollout._asdict().items() if x.ndim > 1}


def _library_trainer(make_env: Callable[[], gym.Env], gamma: float) -> tuple[Function, Function]:
    config = PPOConfig(
        total_steps=2400,
        num_steps=10,
        minibatch_size=80,
        num_epochs=8,
        learning_rate=1e-2,
        gamma=gamma,
        hidden_sizes=(16,),
    )
    with PPO(make_env, config) as trainer, torch.no_grad():
        with torch.enable_grad():
            trainer.learn(show_progress=False)
        policy, critic = trainer.policy, trainer.critic

    def probabilities(obs: np.ndarray) -> Tensor:
        return policy(torch.as_tensor(obs)).softmax(-1)

    return probabilities, lambda obs: critic(torch.as_tensor(obs))


#: The library's own functions as the audit calls them, each looked up when it is called.
LIBRARY: dict[str, Function] = {
    "check_my_gae": lambda *x: ppo.gae(*x[:5], gamma=x[5], gae_lambda=x[6]),
    "check_my_policy_loss": lambda *x: ppo.clipped_surrogate_loss(*x[:3], clip_range=x[3]),
    "check_my_value_loss": lambda values, returns: ppo.value_loss(values, returns),
    "check_my_kl": lambda old, new: Categorical.kl(old, new),
    "check_my_entropy": lambda logits: Categorical.entropy(logits),
    "check_my_log_prob": lambda mean, log_std, actions: DiagonalGaussian.log_prob(
        torch.hstack([mean, log_std]), actions
    ),
    "check_my_normalize": lambda advantages: ppo.normalize_advantages(advantages),
    "check_my_rollout": _library_rollout,
    "check_my_trainer": _library_trainer,
}


def audited(check: str) -> str:
    """What a check of `ppo_lib.audit` says of the library as it is now, or with what is planted."""
    try:
        return repr(getattr(audit, check)(LIBRARY[check]))
    except audit.BugFound as found:
        return str(found)


def called(name: str) -> str:
    """The name that the audit gives to a bug of `BUGS`, planted for the time of the check."""
    check = BUGS[name].check
    if not check:
        return "nothing"
    with planted(name):
        try:
            getattr(audit, check)(LIBRARY[check])
        except audit.BugFound as found:
            return found.bug or "other numbers"
    return "nothing"


# -------------------------------------------------------------------------------- the runs


def load(path: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """The stored curves, by task and by what was planted: ``[seeds, updates]`` each."""
    runs: dict[str, dict[str, np.ndarray]] = {}
    for case, entry in read_runs(path, "make bugs")["cases"].items():
        task, name = case.split(": ")
        runs.setdefault(task, {})[name] = np.array(entry["curves"])
    return runs


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean along the first axis: of the middle half of the seeds."""
    n = len(scores)
    return np.sort(scores, axis=0)[n // 4 : n - n // 4].mean(axis=0)


def difference(wrong: np.ndarray, right: np.ndarray) -> tuple[float, float, float]:
    """The difference of two interquartile means, and its 95 percent interval by the bootstrap.

    Args:
        wrong: ``[seeds]``.
        right: ``[seeds]``, drawn again by itself.
    """
    dice = np.random.default_rng(0)
    again = [iqm(x[dice.integers(0, len(x), (len(x), 4000))]) for x in (wrong, right)]
    low, high = np.quantile(again[0] - again[1], (0.025, 0.975))
    return float(iqm(wrong) - iqm(right)), float(low), float(high)
