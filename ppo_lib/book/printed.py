"""What is printed is what is proved: a displayed equation, read from its notebook and run.

A check says what the symbols mean, each computed in another way than by the formula; the formula
itself is taken from the page.  Every change of one token must give other numbers, or the check
must name it as equivalent and say why.  The source's own formula, where the ledger has it, is run
on the same world.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppo_lib.book.checks import EXACT_TOLERANCE, CheckFailed, Verdict, in_words, misses
from ppo_lib.book.formulas import (
    BEFORE,
    Node,
    Relation,
    Statement,
    Symbol,
    Unreadable,
    find_tex,
    read_expression,
    read_formula,
)
from ppo_lib.book.reading import Known, Value, World, changes, elementwise, show, union
from ppo_lib.exact.mdp import (
    MDP,
    Trajectories,
    Values,
    draw,
    exact_values,
    expected_return,
    list_trajectories,
    ridge,
    state_visits,
    trajectory_probs,
)
from ppo_lib.returns import gae, k_step_advantages, rewards_to_go, td_errors

STANDARD_ERRORS = 4.0
ALONG = (r"\tau",)
SERIES = 45  #: terms of an infinite series; at λ = 1/2 the rest is below rounding
LATER = SERIES + 3  #: steps behind the end of a trajectory


def check_equation(
    label: str,
    world: World,
    *,
    parts: Sequence[World] = (),
    where: Known | None = None,
    dots: Sequence[tuple[str, str]] = (),
    equivalent: Mapping[str, str] | None = None,
    folder: str | Path = ".",
) -> None:
    """Check an equation as it is printed, and that each change of one token is told from it.

    Args:
        label: of the equation, ``"eq-b4"`` say; its TeX is read from a notebook in ``folder``.
        world: what its symbols mean.
        parts: for ≈, the same with parts of the samples; the distance allowed is four standard
            errors of the mean over them.
        where: True where the equation is claimed, along the axes of free indices.
        dots: what the dots stand for, each in turn: a general term in i, which counts the terms
            from 0, and the last i that they hold.
        equivalent: changes that change nothing, by their words, each with the reason.
        folder: where the notebooks are.

    Raises:
        CheckFailed: if a side is not the other, a number is missing, or a change goes unseen.
        Unreadable: if the formula cannot be read, or holds a symbol that nothing binds.
    """
    tex = find_tex(label, Path(folder))
    terms = [(read_expression(term), read_expression(last)) for term, last in dots]
    for each in (world, *parts):
        each.dots = terms
    made, excused = 0, dict(equivalent or {})
    same: list[str] = []
    rows: list[tuple[str, str]] = []
    statements = read_formula(tex)
    every = [relation for statement in statements for relation in statement.relations]
    estimate = next((relation.right for relation in every if relation.sign == "~"), None)
    error_of = cache(partial(_standard_error, parts))  # the same for every changed formula
    compare = partial(_compare, label, world, error_of if parts else None, where, estimate)
    for statement in statements:
        for i, relation in enumerate(statement.relations):
            if relation.left == relation.right:
                raise CheckFailed(f"({label}) {show(relation)} holds a side against itself")
            if _is_bound_to_one(world, relation):
                raise CheckFailed(f"({label}) {show(relation)}: both sides are one binding")
            found = compare(relation)
            if found.why is not None:
                raise CheckFailed(f"({label}) {show(relation)}: {found.why}{_pieces(relation)}")
            rows += [("left side", in_words(found.left)), ("right side", in_words(found.right))]
            sides = ("left", "right") if i == 0 else ("right",)
            for side in sides:
                for said, other in changes(getattr(relation, side)):
                    try:
                        wrong = compare(replace(relation, **{side: other}))
                    except Unreadable:
                        continue  # no formula of this world: nothing was told from the right one
                    made += 1
                    rows.append((said, wrong.in_words(excused.get(said, ""))))
                    if wrong.why is None:
                        same.append(said)
    if made == 0:
        raise CheckFailed(f"({label}) has no token that could be changed: its check says nothing")
    if missed := [said for said in dict.fromkeys(same) if said not in excused]:
        raise CheckFailed(f"({label}) goes unseen: {'; '.join(missed)}")
    if told := [said for said in excused if said not in same]:
        raise CheckFailed(f"({label}) is told apart: {'; '.join(told)}")
    also = f"; {len(same)} change nothing: {', '.join(excused)}" if same else ""
    held = f"printed · rejects {made - len(same)} of {made} one-token changes{also}"
    if found_there := _of_the_source(label, Path(folder), statements, compare):
        held += f" · source: {found_there}"
        rows.append(("the source's own formula", found_there))
    Verdict(label, held, tuple(rows)).show()


class Comparison(NamedTuple):
    """Two sides of a relation, and how they differ."""

    why: str | None  #: why the relation does not hold
    gap: float  #: by how much
    left: Tensor
    right: Tensor

    def in_words(self, reason: str) -> str:
        """How far a changed formula is off; the reason if it is not."""
        if self.why is None:
            return f"the same numbers: {reason}"
        return misses(self.gap) if self.gap < torch.inf else "not a number somewhere"


def _compare(
    label: str,
    world: World,
    error_of: Callable[[Node, tuple[str, ...]], Tensor] | None,
    where: Known | None,
    estimate: Node | None,
    relation: Relation,
) -> Comparison:
    """Hold two sides of a relation against each other; ≈ with the errors of the estimate."""
    a, b = world.value(relation.left, {}), world.value(relation.right, {})
    mask = None if where is None else Value(torch.as_tensor(where.value), where.along)
    axes = union(a, b) if mask is None else union(a, b, mask)
    x, y = torch.broadcast_tensors(a.over(axes).double(), b.over(axes).double())
    inside = torch.ones((), dtype=torch.bool) if mask is None else mask.over(axes)
    x, y, inside = torch.broadcast_tensors(x, y, inside)
    shape = x.shape
    x, y = x[inside], y[inside]
    if x.numel() == 0:
        raise CheckFailed(f"({label}) claims nothing: where is nowhere True")
    if not bool((finite := x.isfinite() & y.isfinite()).all()):
        place = _place(axes, shape, inside, ~finite)
        return Comparison(f"a side is not a number somewhere, first{place}", torch.inf, x, y)
    allowed = EXACT_TOLERANCE * max(1.0, float(y.abs().max()))
    if relation.sign == "~" and error_of is None:
        # One draw stands for its mean: the two have one mean over the trajectories.
        a, b = (_mean_over_draws(world, v, where) for v in (a, b))
        axes = union(a, b)
        x, y = torch.broadcast_tensors(a.over(axes), b.over(axes))
        shape, inside = x.shape, torch.ones_like(x, dtype=torch.bool)
        x, y = x.flatten(), y.flatten()
        gap = (x - y).abs()
    elif relation.sign == "~":
        error = error_of(estimate or relation.right, tuple(axes))
        gap = (x - y).abs() - STANDARD_ERRORS * error.expand(shape)[inside]
    else:
        gap = {"=": (x - y).abs(), "<=": x - y, ">=": y - x}[relation.sign]
    most, why = float(gap.max()), None
    if most > allowed:
        first = int((gap > allowed).nonzero()[0])
        sides = f"{float(x[first]):.6g} and {float(y[first]):.6g}"
        place = _place(axes, shape, inside, gap > allowed)
        why = f"the sides are {sides}{place}, and at most {most:.3g} more than allowed apart"
    return Comparison(why, most, x, y)


def _standard_error(parts: Sequence[World], estimate: Node, axes: tuple[str, ...]) -> Tensor:
    """Of an estimate, from its means over parts of the samples."""
    means = torch.stack([part.value(estimate, {}).over(axes).double() for part in parts])
    return means.std(dim=0) / len(parts) ** 0.5


def _place(axes: Sequence[str], shape: torch.Size, inside: Tensor, there: Tensor) -> str:
    """The first of some numbers by its indices: `` at s = 3, a = 1``."""
    number = inside.flatten().nonzero()[there.nonzero()[0]].squeeze()
    place = zip(axes, torch.unravel_index(number, shape), strict=True) if shape else ()
    named = ", ".join(f"{axis.replace(chr(92), '')} = {int(i)}" for axis, i in place)
    return f" at {named}" if named else ""


def _pieces(relation: Relation) -> str:
    """Where the sides of a relation stand in its TeX."""
    sides = [side.span for side in (relation.left, relation.right) if side.span]
    places = " and ".join(f"at character {span.start}: {span.piece}" for span in sides)
    return f', in "{sides[0].tex}": {places}' if sides else ""


# ------------------------------------------------------------------ the source's own formula


@cache
def _ledger(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _of_the_source(
    label: str,
    folder: Path,
    book: Sequence[Statement],
    compare: Callable[[Relation], Comparison],
) -> str:
    """What running the source's own formula shows, in words; none where the ledger has none."""
    ledger = _ledger(folder.resolve() / "ledger.toml")
    rows = [row for row in ledger.get("statement", ()) if row["label"] == label]
    if not rows or "source" not in rows[0] or "aside" in rows[0]:
        return ""
    (row,) = rows
    tex = row["source"]
    for ours in (row.get("reads", ()), ledger["reads"]):
        for old, new in ours:
            tex = tex.replace(old, new)
    left = read_expression(row["left"]) if "left" in row else None
    said = _run_source(tex, book, left, compare)
    if "mended" in row:
        for old, new in row["mended"]:
            if old not in tex:
                raise CheckFailed(f"({label}) the source's formula has no {old} to mend: {tex}")
            tex = tex.replace(old, new)
        said += f"; with {row['needs']}: {_run_source(tex, book, left, compare)}"
    return said


def _run_source(
    tex: str,
    book: Sequence[Statement],
    left: Node | None,
    compare: Callable[[Relation], Comparison],
) -> str:
    """By how much the sides of a formula differ, in words.

    One that begins with its relation stands behind the left side of the book's, if no other is
    given; one that is no relation is held against the right side of the book's.
    """
    relations = book[0].relations
    try:
        read = read_formula(tex)
    except Unreadable as error:
        if not error.why.startswith("no relation"):
            raise
        read, left = read_formula(f"= {tex}"), left or relations[-1].right
    gaps = []
    for relation in (relation for statement in read for relation in statement.relations):
        if relation.left == Symbol(BEFORE):
            relation = replace(relation, left=left or relations[0].left)
        try:
            found = compare(relation)
        except Unreadable as error:
            return f"no value: {error.why}"
        gap = float((found.left - found.right).abs().max())
        gaps.append(0.0 if found.why is None else gap)
    worst = max(gaps, key=lambda gap: torch.inf if gap != gap else gap)
    if worst != worst:
        return "no number"
    return misses(worst) if worst else "the same"


def _is_bound_to_one(world: World, relation: Relation) -> bool:
    """Whether both sides are symbols, and one tensor is what both mean."""
    sides = (relation.left, relation.right)
    known = [world.match(side) for side in sides if isinstance(side, Symbol)]
    if len(known) < 2 or None in known:
        return False
    first, second = (match[0].value for match in known if match is not None)
    return first is second


def _mean_over_draws(world: World, value: Value, where: Known | None) -> Value:
    axis = r"\tau"
    law = world.value(Symbol("P", (Symbol(r"\theta"),), (), (Symbol(axis),)), {})
    mask = Value(torch.tensor(True)) if where is None else Value(where.value, where.along)
    kept = elementwise(lambda p, v, m: torch.where(m, p * v, 0.0), law, value, mask)
    axes = (*(a for a in kept.axes if a != axis), axis)
    return Value(kept.over(axes).sum(-1), axes[:-1])


class Revealing(NamedTuple):
    """A world in which no misprint hides, and two policies and a critic in it."""

    mdp: MDP
    every: Trajectories
    theta: Tensor  #: ``[S, A]``, logits θ
    old_theta: Tensor  #: ``[S, A]``, logits θ' nearby
    critic: Tensor  #: ``[S]``, a wrong V
    taken: Known  #: where a step t of a trajectory was taken


def revealing_world(seed: int = 3) -> Revealing:
    """The ridge with a reward on every move and several places to start.

    On the ridge itself a lost P(s_0) or a lost reward in its middle would change no number.
    """
    generator = torch.Generator().manual_seed(seed)
    randn = partial(torch.randn, dtype=torch.float64, generator=generator)
    world = ridge()
    start = torch.zeros_like(world.start)
    start[:4] = start.new_tensor([0.6, 0.1, 0.1, 0.2])
    reward = (world.reward + randn(world.reward.shape)) * (world.transition > 0)
    mdp = replace(world, start=start, reward=reward)
    theta, every = randn(14, 3), list_trajectories(mdp)
    taken = Known(every.mask, (*ALONG, "t"))
    return Revealing(mdp, every, theta, theta + 0.3 * randn(14, 3), randn(14), taken)


def exact_world(
    mdp: MDP,
    theta: Tensor,
    *,
    gamma: float,
    old_theta: Tensor | None = None,
    critic: Tensor | None = None,
    gae_lambda: float = 0.5,
    samples: Trajectories | None = None,
    more: Mapping[str, Any] | None = None,
    every: Trajectories | None = None,
) -> World:
    r"""What the book's symbols mean on a world whose trajectories are listed.

    Probabilities come from the list, Q, V and A from Bellman's linear equations, visits from
    theirs, J from V, advantage estimates from the library: never from the formula that a check
    holds them against.  Behind the end of a trajectory lie more steps that pay nothing.

    Args:
        mdp: the world.
        theta: ``[S, A]`` float64, logits; what ∇ differentiates by.
        gamma: the discount γ.
        old_theta: ``[S, A]``, the logits θ' of the old policy.
        critic: ``[S]``, what V(s) stands for in the estimates δ_t, Â^(k)_t and Â^GAE_t.
        gae_lambda: λ of the last of them.
        samples: N trajectories, for formulas with τ^n.
        more: further symbols, by pattern, which go before these.
        every: the list of the world's trajectories, if it is there already.
    """
    every, inside = every or list_trajectories(mdp), ~mdp.terminal
    symbols: dict[str, Any] = {
        r"\gamma": gamma,
        "P(s_0)": Known(mdp.start[every.states[:, 0]], ALONG),
        r"P(s' \mid s, a)": mdp.transition.permute(2, 0, 1),
        "r(s, a, s')": mdp.reward,
        "r(s, a)": (mdp.transition * mdp.reward).sum(-1),
        r"R(\tau)": rewards_to_go(every.rewards.T, gamma=gamma)[0],
    }
    columns = _columns(every, gamma)
    symbols |= {name: Known(column, ALONG) for name, column in columns.items()}
    for pattern, meaning in _of_a_policy(mdp, every, gamma).items():
        of_logits = partial(_at_logits, meaning)
        symbols[pattern.replace("THETA", r"\theta")] = of_logits
        if old_theta is not None:
            symbols[pattern.replace("THETA", r"\theta'")] = of_logits(old_theta)
    if critic is not None:
        symbols |= _of_a_critic(mdp, every, critic, gamma, gae_lambda)
        symbols["e(s)"] = (critic - exact_values(mdp, theta.softmax(-1), gamma).v) * inside
    sizes = {r"\tau": len(every.mask), "t": every.mask.shape[1], "t'": every.mask.shape[1]}
    sizes |= dict.fromkeys(("s", "s'"), len(mdp.states)) | dict.fromkeys("ab", len(mdp.actions))
    if samples is not None:
        codes = {tuple(row): i for i, row in enumerate(_codes(every))}
        numbers = torch.tensor([codes[tuple(row)] for row in _codes(samples)])
        of_samples = {r"\tau^n": numbers, "T_n": samples.mask.sum(1)}
        of_samples |= {f"{k[0]}^n_t": x for k, x in _columns(samples, gamma).items() if k != "T"}
        # Samples are counted from 1.
        symbols |= {name: torch.cat([x[:1], x]) for name, x in of_samples.items()}
        symbols["N"] = len(samples.mask)
    return World(symbols | dict(more or {}), sizes=sizes, theta=theta)


def _columns(t: Trajectories, gamma: float) -> dict[str, Tensor]:
    """What happened at each step, with more steps behind the last one."""
    nothing = t.rewards.new_zeros(len(t.rewards), LATER)
    last = t.states[:, -1:].expand(-1, LATER)
    return {
        "T": t.mask.sum(1),
        "s_t": torch.cat([t.states, last], dim=1),
        "a_t": t.actions,
        "r_t": torch.cat([t.rewards, nothing], dim=1),
        "R_t": torch.cat([rewards_to_go(t.rewards.T, gamma=gamma).T, nothing], dim=1),
    }


def _at_logits(meaning: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    return meaning(theta.softmax(-1))


def _of_a_policy(
    mdp: MDP, every: Trajectories, gamma: float
) -> dict[str, Callable[[Tensor], Tensor]]:
    """What depends on a policy, as functions of its probabilities."""
    inside = ~mdp.terminal

    def values(policy: Tensor) -> Values:
        return exact_values(mdp, policy, gamma)

    def at_step(policy: Tensor) -> Tensor:
        steps, rows = torch.einsum("sa,sax->sx", policy, mdp.transition), [mdp.start]
        for _ in range(every.mask.shape[1] - 1):
            rows.append(rows[-1] @ steps)
        return torch.stack(rows) * inside

    return {
        r"\pi_{THETA}(a \mid s)": lambda policy: policy.T,
        r"P_{THETA}(\tau)": lambda policy: trajectory_probs(every, policy),
        "J(THETA)": lambda policy: expected_return(mdp, policy, gamma),
        "Q_{THETA}(s, a)": lambda policy: values(policy).q,
        "V_{THETA}(s)": lambda policy: values(policy).v,
        "A_{THETA}(s, a)": lambda policy: values(policy).advantage,
        "d_{THETA}(s)": lambda policy: state_visits(mdp, policy, gamma) * inside,
        "P_{THETA}(s_t = s)": at_step,
    }


def _of_a_critic(
    mdp: MDP, every: Trajectories, critic: Tensor, gamma: float, gae_lambda: float
) -> dict[str, Any]:
    """The estimates of the advantage, by the library's functions."""
    V = critic * ~mdp.terminal
    ended = mdp.terminal[every.states[:, 1:]].T
    cut = torch.zeros_like(ended)
    args = every.rewards.T, V[every.states[:, :-1]].T, V[every.states[:, 1:]].T, ended
    nothing = every.rewards.new_zeros(len(every.rewards), LATER)

    def along(estimate: Tensor) -> Tensor:
        return torch.cat([estimate.T, nothing], dim=1)

    T = every.mask.shape[1]
    k_steps = [
        along(k_step_advantages(*args, cut, gamma=gamma, k=min(max(k, 1), T)))[:, : T + 3]
        for k in range(SERIES + 1)
    ]
    estimate, _ = gae(*args, cut, gamma=gamma, gae_lambda=gae_lambda)
    return {
        "V(s)": V,
        r"\lambda": gae_lambda,
        r"\infty": SERIES - 1,
        r"\delta_t": Known(along(td_errors(*args, gamma=gamma)), ALONG),
        r"\hat A^{(k)}_t": Known(torch.stack(k_steps, dim=1), ALONG),
        r"\hat A^{\mathrm{GAE}}_t": Known(along(estimate), ALONG),
    }


def sampled_worlds(
    mdp: MDP, theta: Tensor, num: int, generator: torch.Generator, **more: Any
) -> tuple[World, list[World]]:
    """A world with ``num`` samples from θ, and forty with a fortieth of them each, for ≈.

    Args:
        mdp: the world.
        theta: ``[S, A]``; what the samples are drawn from.
        num: N, a multiple of 40.
        generator: draws them.
        more: passed to `exact_world`.
    """
    every = list_trajectories(mdp)
    samples = draw(every, theta.softmax(-1), num, generator)
    parts = [Trajectories(*(column[i::40] for column in samples)) for i in range(40)]
    worlds = [
        exact_world(mdp, theta, samples=part, every=every, **more) for part in (samples, *parts)
    ]
    return worlds[0], worlds[1:]


def _codes(t: Trajectories) -> list[list[int]]:
    return torch.cat([t.states, t.actions, t.mask.long()], dim=1).tolist()
