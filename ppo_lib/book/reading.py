"""Running formulas: each side of a displayed equation, evaluated on the exact world.

A value is a tensor with named axes: trajectories, steps, states, actions, samples, parameters.
A sum makes its index an axis and its bounds a mask; an index that nothing binds stays a free
axis, and the equation is claimed for all of it; an expectation is a weighted sum; a condition
groups; ∇ is autograd's, forwards through whatever the symbols say depends on θ.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ppo_lib.book.formulas import (
    Apply,
    Cases,
    Divergence,
    Dots,
    Fraction,
    Mean,
    Node,
    Number,
    Over,
    Partial,
    Power,
    Product,
    Relation,
    Sum,
    Symbol,
    Unreadable,
    read_expression,
)

#: What may stand for an index in the pattern of a symbol: R^n_t has the slots n and t.
SLOTS = set("tnsaxijkbmy") | {"t'", "s'", "a'", r"\tau"}
GRADIENT = "∇"
_COMPARE = {"=": torch.eq, "<=": torch.le, ">=": torch.ge, "<": torch.lt, ">": torch.gt}
_OTHER_WAY = {"<=": ">=", ">=": "<=", "<": ">", ">": "<"}
_FREE = {Symbol(name) for name in SLOTS}


@dataclass(frozen=True)
class Value:
    """A tensor with a name for each axis."""

    x: Tensor
    axes: tuple[str, ...] = ()

    def over(self, axes: Sequence[str]) -> Tensor:
        """The tensor with the given axes, in their order, 1 wide where it lacks one."""
        order = [self.axes.index(a) for a in axes if a in self.axes]
        there = iter(self.x.permute(order).shape)
        shape = [next(there) if a in self.axes else 1 for a in axes]
        return self.x.permute(order).reshape(shape)


def union(*values: Value) -> tuple[str, ...]:
    """All axes of some values, each once."""
    return tuple(dict.fromkeys(axis for value in values for axis in value.axes))


def elementwise(f: Callable[..., Tensor], *values: Value) -> Value:
    """A function of tensors on values, their axes matched by name."""
    axes, sizes = union(*values), dict[str, int]()
    for axis, size in (pair for value in values for pair in zip(value.axes, value.x.shape)):  # noqa: B905
        if size != 1 and sizes.setdefault(axis, size) != size:
            raise Unreadable(f"the index {axis} has {sizes[axis]} values and {size}")
    return Value(f(*(value.over(axes) for value in values)), axes)


@dataclass(frozen=True)
class Known:
    """What a symbol means: a tensor, or a function of θ that gives one.

    Args:
        value: with the axes of ``along``, then one for each slot of the symbol's pattern.
        along: axes that the print does not show: s_t of every trajectory lies along τ.
    """

    value: Any
    along: tuple[str, ...] = ()


class World:
    r"""What the symbols of a formula mean.

    Args:
        symbols: by pattern, ``r"\\pi_\\theta(a \\mid s)"`` say: numbers, tensors with one axis a
            slot, functions of θ that give one, or `Known`.
        sizes: of indices that are summed over as a whole, ``{"s": 14}``.
        theta: the parameters, any shape; what ∇ differentiates by.
    """

    def __init__(
        self,
        symbols: Mapping[str, Any],
        *,
        sizes: Mapping[str, int] | None = None,
        theta: Tensor | None = None,
    ) -> None:
        self.sizes = dict(sizes or {})
        self.theta = torch.zeros(0) if theta is None else theta
        self.base = self.theta
        self.patterns: dict[str, list[tuple[Symbol, Known]]] = {}
        for tex, meaning in symbols.items():
            known = meaning if isinstance(meaning, Known) else Known(meaning)
            pattern = _symbol(tex)
            self.patterns.setdefault(pattern.base, []).append((pattern, known))
        self._cache: dict[int, Tensor] = {}
        self.dots: Sequence[tuple[Node, Node]] = ()

    def tensor(self, known: Known) -> Tensor:
        """What a symbol means at the present θ."""
        if isinstance(known.value, Tensor):
            return known.value
        if not callable(known.value):
            exact = torch.int64 if isinstance(known.value, int) else torch.float64
            return torch.tensor(known.value, dtype=exact)
        if self.theta is not self.base:
            return known.value(self.theta)
        if id(known) not in self._cache:
            self._cache[id(known)] = known.value(self.theta)
        return self._cache[id(known)]

    def meaning(self, tex: str) -> Tensor:
        """The tensor that a symbol stands for, by its pattern."""
        found = self.match(_symbol(tex))
        if found is None:
            raise Unreadable(f"nothing says what {tex} means")
        return self.tensor(found[0])

    # ------------------------------------------------------------------ symbols

    def match(self, use: Symbol) -> tuple[Known, list[Node]] | None:
        """The meaning of a symbol as it is used, and what stands in its slots."""
        found: list[tuple[Known, list[Node]]] = []
        for pattern, known in reversed(self.patterns.get(use.base, [])):
            slots: list[Node] = []
            if self._parts_fit(pattern, use, slots):
                found.append((known, slots))
        # Of several the one that says most: Â^GAE is no Â^(k).
        return min(found, key=lambda match: len(match[1]), default=None)

    def _parts_fit(self, pattern: Node, use: Node, slots: list[Node]) -> bool:
        if type(pattern) is not type(use):
            return False
        symbol = isinstance(pattern, Symbol)
        said = (each.name for each in fields(pattern) if each.compare)
        for name in ("base", "sup", "sub", "args") if symbol else said:
            x, y = getattr(pattern, name), getattr(use, name)
            if not isinstance(x, tuple):
                x, y = (x,), (y,)
            if len(x) != len(y) or not all(map(self._fits, x, y, [slots] * len(x))):
                return False
        return True

    def _fits(self, pattern: Any, use: Any, slots: list[Node]) -> bool:
        if not isinstance(pattern, Node) or not isinstance(use, Node):
            return pattern == use
        if pattern in _FREE and not isinstance(use, Relation):
            slots.append(use)
            return True
        return self._parts_fit(pattern, use, slots)

    def symbol(self, use: Symbol, bound: Mapping[str, Value]) -> Value:
        """The value of a symbol, gathered at what stands in its slots."""
        if use == Symbol(use.base) and use.base in bound:
            return bound[use.base]
        found = self.match(use)
        if found is None:
            if use == Symbol(use.base) and use.base in SLOTS and use.base in self.sizes:
                return Value(torch.arange(self.sizes[use.base]), (use.base,))
            if use.sup and self.match(replace(use, sup=())):
                base = self.symbol(replace(use, sup=()), bound)
                return elementwise(torch.pow, base, self.value(use.sup[0], bound))
            raise Unreadable(f"nothing says what {show(use)} means")
        known, slots = found
        tensor = self.tensor(known)
        sizes = tensor.shape[len(known.along) :]
        if len(sizes) != len(slots):
            raise Unreadable(f"{show(use)} has {len(slots)} places, its value {len(sizes)} axes")
        indices = []
        for slot, size in zip(slots, sizes, strict=True):
            free = isinstance(slot, Symbol) and slot == Symbol(slot.base) and slot.base in SLOTS
            if free and slot.base not in bound and self.match(slot) is None:
                size = self.sizes.get(slot.base, size)
                indices.append(Value(torch.arange(size), (slot.base,)))
            else:
                indices.append(self.value(slot, bound))
        return gather(tensor, known.along, indices)

    # ------------------------------------------------------------------ everything else

    def value(self, node: Node, bound: Mapping[str, Value]) -> Value:
        """The value of a part of a formula, under the indices that are bound.

        Raises:
            Unreadable: if there is none, with the smallest part of the TeX that has none.
        """
        try:
            return getattr(self, "_" + type(node).__name__.lower())(node, bound)
        except (RuntimeError, IndexError, ValueError) as error:
            if node.span is None or getattr(error, "span", None) is not None:
                raise
            why = error.why if isinstance(error, Unreadable) else str(error).partition("\n")[0]
            raise Unreadable(why, node.span) from error

    def size(self, index: str) -> int:
        """How many values an index has that is summed over as a whole."""
        if index not in self.sizes:
            raise Unreadable(f"sizes does not say how many {index} there are")
        return self.sizes[index]

    def _number(self, node: Number, _: Mapping[str, Value]) -> Value:
        number = float(node.text)
        if number == int(number):
            return Value(torch.tensor(int(number)))
        return Value(torch.tensor(number, dtype=torch.float64))

    _symbol = symbol

    def _sum(self, node: Sum, bound: Mapping[str, Value]) -> Value:
        total: Value | None = None
        for place, (sign, term) in enumerate(zip(node.signs, node.terms, strict=True)):
            if isinstance(term, Dots) and term.number < len(self.dots):
                # As many terms as stand before the dots are written out already.
                general, last = self.dots[term.number]
                term = Over("sum", "i", Number(str(place)), last, general)
            part = self.value(term, bound)
            part = Value(-part.x, part.axes) if sign < 0 else part
            total = part if total is None else elementwise(torch.add, total, part)
        assert total is not None
        return total

    def _product(self, node: Product, bound: Mapping[str, Value]) -> Value:
        total = self.value(node.factors[0], bound)
        for factor in node.factors[1:]:
            total = elementwise(torch.mul, total, self.value(factor, bound))
        return total

    def _power(self, node: Power, bound: Mapping[str, Value]) -> Value:
        base, exponent = self.value(node.base, bound), self.value(node.exponent, bound)
        return elementwise(lambda x, k: torch.pow(x.double(), k), base, exponent)

    def _fraction(self, node: Fraction, bound: Mapping[str, Value]) -> Value:
        return elementwise(
            lambda x, y: x.double() / y, self.value(node.top, bound), self.value(node.bottom, bound)
        )

    def _relation(self, node: Relation, bound: Mapping[str, Value]) -> Value:
        compare = _COMPARE[node.sign]
        return elementwise(compare, self.value(node.left, bound), self.value(node.right, bound))

    def _over(self, node: Over, bound: Mapping[str, Value]) -> Value:
        axis = node.index
        while any(axis in value.axes for value in bound.values()):
            axis += "·"  # an index of the same name further out
        if node.low is None:
            low, high = Value(torch.tensor(0)), Value(torch.tensor(self.size(node.index) - 1))
        else:
            if node.high is None:
                raise Unreadable(f"the sum over {node.index} has no upper bound")
            low, high = self.value(node.low, bound), self.value(node.high, bound)
        first, last = int(low.x.min()), int(high.x.max())
        steps = Value(torch.arange(first, max(last, first) + 1), (axis,))
        body = self.value(node.body, {**bound, node.index: steps})
        inside = elementwise(lambda i, a, b: (a <= i) & (i <= b), steps, low, high)
        axes = (*(a for a in union(body, inside) if a != axis), axis)
        x, mask = body.over(axes), inside.over(axes)
        x, mask = torch.broadcast_tensors(x, mask)
        if node.kind == "max":
            return Value(x.double().masked_fill(~mask, -torch.inf).amax(-1), axes[:-1])
        if node.kind == "prod":
            return Value(torch.where(mask, x, torch.ones_like(x)).prod(-1), axes[:-1])
        return Value(torch.where(mask, x, torch.zeros_like(x)).sum(-1), axes[:-1])

    def _mean(self, node: Mean, bound: Mapping[str, Value]) -> Value:
        if node.kind == "Var":
            mean = replace(node, kind="E")
            square = replace(mean, body=Power(node.body, Number("2")))
            first, second = self.value(mean, bound), self.value(square, bound)
            spread = elementwise(lambda m, q: q - m**2, first, second)
            # Of a vector, the sum over its components.
            return _reduce(spread, GRADIENT) if GRADIENT in spread.axes else spread
        index = node.index or r"\tau"
        law = node.law or Symbol("P", (Symbol(r"\theta"),))
        if Symbol(r"\cdot") in law.args:
            args = tuple(Symbol(index) if x == Symbol(r"\cdot") else x for x in law.args)
            weight_of = replace(law, args=args)
        elif law.args:
            weight_of = law
        elif self.match(replace(law, args=(Symbol(index),))):
            weight_of = replace(law, args=(Symbol(index),))
        else:
            weight_of = replace(law, args=(Symbol(index), Symbol("s", (Symbol("t"),))), bar=True)
        here = {**bound, index: Value(torch.arange(self.size(index)), (index,))}
        weight, body = self.value(weight_of, here), self.value(node.body, here)
        if not node.given:
            return _reduce(elementwise(_times, weight, body), index)
        conditions, values = [], []
        for given in node.given:
            (conditions if isinstance(given, Relation) else values).append(self.value(given, here))
        for condition in conditions:
            weight = elementwise(torch.mul, weight, condition)
        if values:
            return _given_values(weight, body, values, index)
        total = _reduce(elementwise(_times, weight, body), index)
        return elementwise(torch.div, total, _reduce(weight, index))

    def _divergence(self, node: Divergence, bound: Mapping[str, Value]) -> Value:
        whole = next((i for i in (r"\tau", "y") if i in self.sizes), "a")
        index = "a" if node.first.args else whole
        here = {**bound, index: Value(torch.arange(self.size(index)), (index,))}

        def at(law: Node) -> Value:
            args = tuple(Symbol(index) if x == Symbol(r"\cdot") else x for x in law.args)
            return self.value(replace(law, args=args or (Symbol(index),)), here)

        terms = elementwise(lambda p, q: p * (p / q).log(), at(node.first), at(node.second))
        return _reduce(terms, index)

    def _apply(self, node: Apply, bound: Mapping[str, Value]) -> Value:
        if node.name == "grad":
            return self._grad(node.args[0], bound)
        values = [self.value(arg, bound) for arg in node.args]
        if node.name == "norm":
            (value,) = values
            axes = tuple(a for a in value.axes if a != GRADIENT)
            return Value(value.over((*axes, GRADIENT)).norm(dim=-1), axes)
        functions: dict[str, Callable[..., Tensor]] = {
            "log": lambda x: x.double().log(),
            "abs": torch.abs,
            "min": torch.minimum,
            "max": torch.maximum,
            "clip": lambda x, low, high: torch.minimum(torch.maximum(x, low), high),
            "indicator": lambda x: x.double(),
        }
        return elementwise(functions[node.name], *values)

    def _cases(self, node: Cases, bound: Mapping[str, Value]) -> Value:
        # Where no case holds the formula has no value; where two hold they must agree.
        result = Value(torch.tensor(torch.nan))
        for value, condition in zip(node.values, node.conditions, strict=True):
            result = elementwise(
                _one_of, result, self.value(value, bound), self.value(condition, bound)
            )
        return result

    def _grad(self, body: Node, bound: Mapping[str, Value]) -> Value:
        axes: list[tuple[str, ...]] = []

        def f(theta: Tensor) -> Tensor:
            self.theta = theta.view(self.base.shape)
            try:
                value = self.value(body, bound)
            finally:
                self.theta = self.base
            axes.append(value.axes)
            return value.x.double()

        slopes = torch.func.jacfwd(f)(self.base.flatten())
        return Value(slopes, (*axes[-1], GRADIENT))

    def _partial(self, node: Partial, bound: Mapping[str, Value]) -> Value:
        slopes = self._grad(node.top, bound)
        axes = slopes.axes[:-1]
        table = slopes.x.reshape(*slopes.x.shape[:-1], *self.base.shape)
        indices = []
        for slot, size in zip(node.place, self.base.shape, strict=True):
            free = isinstance(slot, Symbol) and slot.base in SLOTS and slot.base not in bound
            indices.append(
                Value(torch.arange(size), (slot.base,)) if free else self.value(slot, bound)
            )
        return gather(table, axes, indices)

    def _dots(self, _node: Dots, _bound: Mapping[str, Value]) -> Value:
        raise Unreadable("nothing says what the dots stand for")


def _symbol(tex: str) -> Symbol:
    pattern = read_expression(tex)
    if not isinstance(pattern, Symbol):
        raise Unreadable(f"symbols has {tex!r}, expected a symbol")
    return pattern


def gather(tensor: Tensor, along: tuple[str, ...], indices: Sequence[Value]) -> Value:
    """A tensor at the places that are asked for; not a number where there is no such place."""
    if not indices:
        return Value(tensor, along)
    axes = (*along, *(a for a in union(*indices) if a not in along))
    places, inside = [], None
    for axis, size in zip(along, tensor.shape, strict=False):
        places.append(Value(torch.arange(size), (axis,)).over(axes))
    for index, size in zip(indices, tensor.shape[len(along) :], strict=True):
        place = index.over(axes).long()
        there = (place >= 0) & (place < size)
        inside = there if inside is None else inside & there
        places.append(place.clamp(0, size - 1))
    found = tensor[tuple(places)]
    if inside is not None and not bool(inside.all()):
        found = found.double().masked_fill(~inside, torch.nan)
    return Value(found, axes)


def _one_of(before: Tensor, value: Tensor, holds: Tensor) -> Tensor:
    agree = before.isnan() | (before == value)
    return torch.where(holds, torch.where(agree, value.double(), torch.nan), before)


def _times(weight: Tensor, body: Tensor) -> Tensor:
    # What has no weight counts for nothing, even where it is no number.
    return torch.where(weight == 0, 0.0, weight * body)


def _reduce(value: Value, axis: str) -> Value:
    axes = tuple(a for a in value.axes if a != axis)
    return Value(value.over((*axes, axis)).sum(-1), axes)


def _given_values(weight: Value, body: Value, values: Sequence[Value], axis: str) -> Value:
    """E[body | values]: at each outcome, the mean over all outcomes with the same values."""
    others = tuple(a for a in union(weight, body, *values) if a != axis)
    axes = (axis, *others)
    tensors = [value.over(axes).double() for value in (weight, body, *values)]
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    w, x, *keys = (tensor.expand(shape).reshape(shape[0], -1) for tensor in tensors)
    key = torch.zeros_like(x)
    for part in keys:  # states and actions by number, fewer than a thousand
        key = 1000 * key + part.nan_to_num(999.0)
    columns = []
    for w_j, x_j, key_j in zip(w.T, x.T, key.T, strict=True):
        numbers, group = key_j.unique(return_inverse=True)
        total = x_j.new_zeros(len(numbers)).index_add(0, group, _times(w_j, x_j))
        mass = x_j.new_zeros(len(numbers)).index_add(0, group, w_j)
        columns.append((total / mass)[group])
    return Value(torch.stack(columns, dim=-1).reshape(shape), axes)


def show(node: Node | None) -> str:
    """A part of a formula in a line, near enough to its print to find it."""
    if isinstance(node, Symbol):
        scripts = "".join(
            f"{mark}{{{','.join(map(show, items))}}}"
            for mark, items in (("_", node.sub), ("^", node.sup))
            if items
        )
        joint = " | " if node.bar else ", "
        args = f"({joint.join(map(show, node.args))})" if node.args else ""
        return node.base.replace("\\", "") + scripts + args
    if isinstance(node, Number):
        return node.text
    if isinstance(node, Dots):
        return "the terms left out"
    if isinstance(node, Relation):
        return f"{show(node.left)} {node.sign} {show(node.right)}"
    if isinstance(node, Sum):
        pairs = zip(node.signs, node.terms, strict=True)
        return " ".join(f"{'-' if s < 0 else '+'} {show(t)}" for s, t in pairs).removeprefix("+ ")
    if isinstance(node, Over):
        bounds = f"{node.index}={show(node.low)}..{show(node.high)}" if node.low else node.index
        return f"{node.kind}_{bounds} {show(node.body)}"
    if isinstance(node, Mean):
        given = " | " + ", ".join(map(show, node.given)) if node.given else ""
        return f"{node.kind}[{show(node.body)}{given}]"
    name = node.name if isinstance(node, Apply) else type(node).__name__.lower()
    joint = {"product": " ", "power": "^", "fraction": "/"}.get(name)
    parts = [show(part) for part in node.children()]
    return joint.join(parts) if joint else f"{name}({', '.join(parts)})"


# ---------------------------------------------------------------------- wrong formulas


def changes(node: Node) -> Iterator[tuple[str, Node]]:
    """Every formula that differs from this one in one token, with the change in words."""
    yield from _changes_here(node)
    for name in node.__dataclass_fields__:
        value = getattr(node, name)
        items = value if isinstance(value, tuple) else (value,)
        for i, item in enumerate(items):
            if not isinstance(item, Node):
                continue
            for said, other in changes(item):
                new = (*items[:i], other, *items[i + 1 :]) if isinstance(value, tuple) else other
                yield said, replace(node, **{name: new})


def _changes_here(node: Node) -> Iterator[tuple[str, Node]]:
    if isinstance(node, Sum):
        for i, term in enumerate(node.terms):
            signs = (*node.signs[:i], -node.signs[i], *node.signs[i + 1 :])
            yield f"the sign of {show(term)}", replace(node, signs=signs)
    elif isinstance(node, Product):
        for i, factor in enumerate(node.factors):
            rest = (*node.factors[:i], *node.factors[i + 1 :])
            yield f"without {show(factor)}", rest[0] if len(rest) == 1 else Product(rest)
    elif isinstance(node, Power):
        yield f"without the exponent {show(node.exponent)}", node.base
        if node.exponent in _FREE:
            for sign, step in ((1, "+1"), (-1, "-1")):
                moved = Sum((1, sign), (node.exponent, Number("1")))
                yield f"{show(node)} with {step}", replace(node, exponent=moved)
    elif isinstance(node, Fraction):
        yield f"without / {show(node.bottom)}", node.top
        yield f"{show(node.bottom)} / {show(node.top)}", Fraction(node.bottom, node.top)
    elif isinstance(node, Over):
        for side in ("low", "high"):
            bound = getattr(node, side)
            if bound is not None and bound != Symbol(r"\infty"):
                for sign, step in ((1, "+ 1"), (-1, "- 1")):
                    moved = Sum((1, sign), (bound, Number("1")))
                    yield f"{show(bound)} {step}", replace(node, **{side: moved})
        other = {"sum": "max", "prod": "sum", "max": "sum"}[node.kind]
        yield f"{other} for {node.kind}", replace(node, kind=other)
    elif isinstance(node, Mean):
        for i, given in enumerate(node.given):
            rest = (*node.given[:i], *node.given[i + 1 :])
            yield f"without the condition {show(given)}", replace(node, given=rest)
        kind = "Var" if node.kind == "E" else "E"
        yield f"{kind} for {node.kind}", replace(node, kind=kind)
    elif isinstance(node, Relation) and node.sign in _OTHER_WAY:
        yield f"{show(node)} the other way", replace(node, sign=_OTHER_WAY[node.sign])
    elif isinstance(node, Apply) and node.name in ("min", "max"):
        yield "min and max", replace(node, name="max" if node.name == "min" else "min")
    elif isinstance(node, Apply) and node.name in ("log", "abs"):
        yield f"without {node.name}", node.args[0]
    elif isinstance(node, Divergence):
        yield "the other order", Divergence(node.second, node.first)
    elif isinstance(node, Symbol):
        primed = {r"\theta": r"\theta'", r"\theta'": r"\theta"}
        if node.base in primed:
            yield "θ and θ'", replace(node, base=primed[node.base])
        for field in ("sub", "args"):
            items = getattr(node, field)
            for i, item in enumerate(items):
                if (
                    isinstance(item, Symbol)
                    and item.base in ("t", "t'")
                    and item == Symbol(item.base)
                ):
                    for sign, step in ((1, "+1"), (-1, "-1")):
                        moved = Sum((1, sign), (item, Number("1")))
                        new = (*items[:i], moved, *items[i + 1 :])
                        yield f"{show(node)} at {item.base}{step}", replace(node, **{field: new})
