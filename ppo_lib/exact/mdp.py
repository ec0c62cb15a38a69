"""The exact world: a Markov decision process so small that every trajectory can be listed.

A policy is a tensor of probabilities ``[S, A]`` (S states, A actions), rows summing to 1.
Every function is differentiable in it, so that autograd through a policy's parameters
gives exact gradients.  All numbers are float64.
"""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from ppo_lib.validate import in_unit_interval, require

_ROUNDING = 1e-9  # how far a row of probabilities may be from 1


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite Markov decision process that ends by itself.

    Attributes:
        states: the S names of the states.
        actions: the A names of the actions.
        start: ``[S]`` float64, the distribution of the first state, P(s_0).
        transition: ``[S, A, S]`` float64, P(s' | s, a); the rows of terminal states are 0.
        reward: ``[S, A, S]`` float64, the reward r(s, a, s') of a transition.
        terminal: ``[S]`` bool, the states in which the episode is over.
        cells: (row, column) on the grid of the first states, for drawing only; states without
            a cell are not drawn.

    Raises:
        ValueError: if a shape or dtype is wrong, a row of probabilities does not sum to 1, a reward
            is not finite, or a state can be visited twice (its trajectories could not be listed).
    """

    states: tuple[str, ...]
    actions: tuple[str, ...]
    start: Tensor
    transition: Tensor
    reward: Tensor
    terminal: Tensor
    cells: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        S, A = len(self.states), len(self.actions)
        for name, shape, dtype in [
            ("start", (S,), torch.float64),
            ("transition", (S, A, S), torch.float64),
            ("reward", (S, A, S), torch.float64),
            ("terminal", (S,), torch.bool),
        ]:
            tensor = getattr(self, name)
            found = tuple(tensor.shape)
            require(found == shape, f"{name} has shape {found}, expected {shape}")
            require(tensor.dtype == dtype, f"{name} has dtype {tensor.dtype}, expected {dtype}")
        require(bool(self.reward.isfinite().all()), "reward holds a value that is not finite")
        require(bool((self.start >= 0).all()), "start holds a negative probability")
        require(bool((self.transition >= 0).all()), "transition holds a negative probability")
        total = float(self.start.sum())
        require(abs(total - 1) < _ROUNDING, f"start sums to {total}, expected 1")
        for s in range(S):
            expected = 0.0 if self.terminal[s] else 1.0
            for a in range(A):
                total = float(self.transition[s, a].sum())
                require(
                    abs(total - expected) < _ROUNDING,
                    f"transition[{self.states[s]!r}, {self.actions[a]!r}] sums to {total}, "
                    f"expected {expected}",
                )
        require(
            _is_acyclic(self.transition.sum(1) > 0),
            "transition lets a state be visited twice; make the step part of the state",
        )


class Trajectories(NamedTuple):
    """Every trajectory of an MDP, one a row, padded to the longest one's T steps.

    Shapes: n trajectories, T steps.  After a trajectory's end ``mask`` is False, ``states``
    repeats the last state, ``actions`` and ``rewards`` are 0.
    """

    states: Tensor  #: ``[n, T + 1]`` int64, s_0 … s_T
    actions: Tensor  #: ``[n, T]`` int64, a_0 … a_{T-1}
    rewards: Tensor  #: ``[n, T]`` float64, r_0 … r_{T-1}
    mask: Tensor  #: ``[n, T]`` bool, True where a step was taken
    env_probs: Tensor  #: ``[n]`` float64, P(s_0) Π P(s_{t+1} | s_t, a_t): what θ cannot change


class Values(NamedTuple):
    """The value functions of a policy (eq-d1, eq-d2, eq-d3); all 0 in terminal states."""

    q: Tensor  #: ``[S, A]`` float64, Q(s, a)
    v: Tensor  #: ``[S]`` float64, V(s)
    advantage: Tensor  #: ``[S, A]`` float64, A(s, a) = Q(s, a) - V(s)


def ridge(slip: float = 0.2) -> MDP:
    """The world of the book: a climb along a ridge with a drop on either side.

    The ridge is three cells wide.  From a start below its middle cell, every action climbs one
    row: ``left`` and ``right`` also move one column sideways.  With probability ``slip`` the
    climber goes in one of the two other directions, each equally likely.  Who leaves the ridge
    has fallen.  Rewards are paid on arrival: 2, 2, 4 in the first row, from left to right, and
    10, 2, 4 in the fourth and last; a fall pays nothing.  Every move climbs a row, so that the
    world ends by itself after at most four steps and the state holds the step: V(s) is one
    number for each state.

    Args:
        slip: the probability of not going where one means to, in [0, 1]; at 0 the world is
            deterministic.

    Returns:
        14 states, of which 10 are not terminal, and the actions left, up, right.
    """
    in_unit_interval("slip", slip)
    rows, columns, moves = 4, 3, (-1, 0, 1)
    rewards = {(1, 0): 2.0, (1, 1): 2.0, (1, 2): 4.0, (4, 0): 10.0, (4, 1): 2.0, (4, 2): 4.0}
    cells = [(0, 1), *product(range(1, rows + 1), range(columns))]
    names = ["start", *(f"{row}{'LMR'[column]}" for row, column in cells[1:]), "fallen"]
    fallen = len(cells)
    transition = torch.zeros(len(names), len(moves), len(names), dtype=torch.float64)
    for s, (row, column) in enumerate(cells):
        if row == rows:
            continue
        for meant, went in product(range(len(moves)), repeat=2):
            target = (row + 1, column + moves[went])
            s_next = cells.index(target) if target in cells else fallen
            transition[s, meant, s_next] += 1 - slip if went == meant else slip / 2
    arrival = torch.tensor([rewards.get(cell, 0.0) for cell in cells] + [0.0], dtype=torch.float64)
    start = torch.zeros(len(names), dtype=torch.float64)
    start[0] = 1.0
    return MDP(
        states=tuple(names),
        actions=("left", "up", "right"),
        start=start,
        transition=transition,
        reward=arrival * (transition > 0),
        terminal=transition.sum((1, 2)) == 0,
        cells=tuple(cells),
    )


def list_trajectories(mdp: MDP) -> Trajectories:
    """List every trajectory that some policy can produce, in depth-first order.

    Returns:
        All trajectories of non-zero environment probability, each ending in a terminal state.
    """
    found: list[tuple[list[int], list[int], list[float], float]] = []
    steps: list[list[tuple[int, int, float, float]]] = [[] for _ in mdp.states]
    for s, a, s_next in mdp.transition.nonzero().tolist():
        reward, prob = mdp.reward[s, a, s_next].item(), mdp.transition[s, a, s_next].item()
        steps[s].append((a, s_next, reward, prob))

    def extend(states: list[int], actions: list[int], rewards: list[float], prob: float) -> None:
        if not steps[states[-1]]:
            found.append((states, actions, rewards, prob))
        for a, s_next, reward, p in steps[states[-1]]:
            extend([*states, s_next], [*actions, a], [*rewards, reward], prob * p)

    for s in mdp.start.nonzero().flatten().tolist():
        extend([s], [], [], float(mdp.start[s]))

    T = max(len(actions) for _, actions, _, _ in found)
    pad = [T - len(actions) for _, actions, _, _ in found]
    return Trajectories(
        states=torch.tensor([s + s[-1:] * p for (s, _, _, _), p in zip(found, pad, strict=True)]),
        actions=torch.tensor([a + [0] * p for (_, a, _, _), p in zip(found, pad, strict=True)]),
        rewards=torch.tensor(
            [r + [0.0] * p for (_, _, r, _), p in zip(found, pad, strict=True)],
            dtype=torch.float64,
        ),
        mask=torch.tensor([[True] * (T - p) + [False] * p for p in pad]),
        env_probs=torch.tensor([prob for *_, prob in found], dtype=torch.float64),
    )


def draw(
    trajectories: Trajectories, policy: Tensor, num: int, generator: torch.Generator
) -> Trajectories:
    """Draw trajectories from P_θ, by their numbers in the list of all of them.

    Args:
        trajectories: all n trajectories of the MDP.
        policy: ``[S, A]`` probabilities.
        num: how many to draw, at least 1.
        generator: draws them.

    Returns:
        ``num`` independent trajectories; the same one may come up more than once.
    """
    require(num >= 1, f"num is {num}, expected at least 1")
    probs = trajectory_probs(trajectories, policy)
    index = torch.multinomial(probs, num, replacement=True, generator=generator)
    return Trajectories(*(column[index] for column in trajectories))


def step_probs(trajectories: Trajectories, policy: Tensor) -> Tensor:
    """π(a_t | s_t) of every step; 1 after the end.

    Args:
        trajectories: n trajectories of at most T steps.
        policy: ``[S, A]`` probabilities.

    Returns:
        ``[n, T]``.
    """
    taken = policy[trajectories.states[:, :-1], trajectories.actions]
    return torch.where(trajectories.mask, taken, torch.ones_like(taken))


def trajectory_probs(trajectories: Trajectories, policy: Tensor) -> Tensor:
    """P_θ(τ) of every trajectory (eq-a14): ``[n]``, summing to 1.

    Args:
        trajectories: all n trajectories of the MDP.
        policy: ``[S, A]`` probabilities.
    """
    return trajectories.env_probs * step_probs(trajectories, policy).prod(dim=1)


def trajectory_returns(trajectories: Trajectories, gamma: float) -> Tensor:
    """R(τ) = Σ_t γ^t r_t of every trajectory (eq-b2): ``[n]``.

    Args:
        trajectories: n trajectories.
        gamma: the discount, in [0, 1].
    """
    in_unit_interval("gamma", gamma)
    t = torch.arange(trajectories.rewards.shape[1], dtype=torch.float64)
    return trajectories.rewards @ gamma**t


def scores(trajectories: Trajectories, policy: Tensor) -> Tensor:
    """∇_θ log π_θ(a_t | s_t) of every step (eq-b11), for a softmax over a table of logits.

    With θ the logits ``[S, A]``, the derivative by θ[s, a] is 1[s_t = s] (1[a_t = a] - π(a | s)).

    Args:
        trajectories: n trajectories of at most T steps.
        policy: ``[S, A]`` probabilities, the softmax of the logits.

    Returns:
        ``[n, T, S, A]``, 0 after the end.
    """
    states = trajectories.states[:, :-1]
    S, A = policy.shape
    in_state = torch.nn.functional.one_hot(states, S) * trajectories.mask[..., None]
    chosen = torch.nn.functional.one_hot(trajectories.actions, A) - policy[states]
    return in_state[..., None] * chosen[..., None, :]


def expected_return(mdp: MDP, policy: Tensor, gamma: float) -> Tensor:
    """J(θ), the expected return (eq-b1), as a scalar: Σ_s P(s_0 = s) V(s).

    Args:
        mdp: the world.
        policy: ``[S, A]`` probabilities.
        gamma: the discount, in [0, 1].
    """
    return torch.dot(mdp.start, exact_values(mdp, policy, gamma).v)


def exact_values(mdp: MDP, policy: Tensor, gamma: float) -> Values:
    """Q, V and A of a policy (eq-d1, eq-d2, eq-d3), by solving Bellman's linear equations.

    V = r_π + γ P_π V, where r_π and P_π are the reward and the transition averaged over
    the policy's actions.

    Args:
        mdp: the world.
        policy: ``[S, A]`` probabilities.
        gamma: the discount, in [0, 1].
    """
    in_unit_interval("gamma", gamma)
    _check_policy(mdp, policy)
    S = len(mdp.states)
    r = (mdp.transition * mdp.reward).sum(-1)
    p_pi = torch.einsum("sa,sax->sx", policy, mdp.transition)
    v = torch.linalg.solve(torch.eye(S, dtype=p_pi.dtype) - gamma * p_pi, (policy * r).sum(-1))
    q = r + gamma * mdp.transition @ v
    alive = (~mdp.terminal).to(v.dtype)
    return Values(q, v, (q - v[:, None]) * alive[:, None])


def state_visits(mdp: MDP, policy: Tensor, gamma: float = 1.0) -> Tensor:
    """Σ_t γ^t P_θ(s_t = s): how often each state is visited in an episode, discounted.

    Args:
        mdp: the world.
        policy: ``[S, A]`` probabilities.
        gamma: the discount, in [0, 1].

    Returns:
        ``[S]``; at γ = 1 it sums to the mean number of states in an episode, the last one included.
    """
    in_unit_interval("gamma", gamma)
    _check_policy(mdp, policy)
    p_pi = torch.einsum("sa,sax->sx", policy, mdp.transition)
    return torch.linalg.solve(
        torch.eye(len(mdp.states), dtype=p_pi.dtype) - gamma * p_pi.T, mdp.start
    )


def best_policy(mdp: MDP, gamma: float) -> Tensor:
    """The deterministic policy of largest expected return (eq-a16), by trying every one.

    Args:
        mdp: the world; A to the power of its non-terminal states policies are tried.
        gamma: the discount, in [0, 1].

    Returns:
        ``[S, A]`` of zeros and ones; the first action in terminal states.
    """
    in_unit_interval("gamma", gamma)
    S, A = len(mdp.states), len(mdp.actions)
    alive = (~mdp.terminal).nonzero().flatten()
    choices = torch.zeros(A ** len(alive), S, dtype=torch.int64)
    choices[:, alive] = torch.tensor(list(product(range(A), repeat=len(alive))))
    every = torch.arange(S)
    r = (mdp.transition * mdp.reward).sum(-1)[every, choices]
    p = mdp.transition[every, choices]
    v = torch.linalg.solve(torch.eye(S, dtype=p.dtype) - gamma * p, r)
    # Of equally good policies the one that is best in every state: the sum of V decides.
    best = choices[v.sum(-1).argmax()]
    return torch.nn.functional.one_hot(best, A).to(mdp.transition.dtype)


def _check_policy(mdp: MDP, policy: Tensor) -> None:
    found, expected = tuple(policy.shape), (len(mdp.states), len(mdp.actions))
    require(found == expected, f"policy has shape {found}, expected {expected}")


def _is_acyclic(edges: Tensor) -> bool:
    """Whether a graph, ``[S, S]`` bool, holds no cycle: its S-th power is empty."""
    reach = edges.double()
    for _ in range(len(edges)):
        reach = (reach @ edges.double()).clamp(max=1)
    return not bool(reach.any())
