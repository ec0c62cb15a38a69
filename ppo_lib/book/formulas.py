r"""Reading formulas: the TeX of a displayed equation becomes a tree.

The grammar is that of the book's own mathematics, and nothing else is understood: an error names
the place.  In words, from the loosest to the tightest binding:

- a *statement* is a chain of expressions with =, ≤, ≥ or ≈ between them;
- an *expression* is a sum of terms, among them ``\cdots``;
- a *term* is a product of factors, a/b among them; ``\sum``, ``\prod`` and ``\max_s`` reach to
  its end;
- a *factor* is a number, a symbol with its scripts and arguments, or one of the `FORMS`.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

BEFORE = r"\before"  #: the left side of a formula that begins with its relation
RELATIONS = {"=": "=", r"\le": "<=", r"\ge": ">=", r"\approx": "~"}
#: What no factor begins with.
_ENDS = ("", *"+-)]},;<>", r"\mid", r"\Vert", r"\rVert", r"\cdots", r"\if", r"\sim")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\S")
_SAME = {r"\dots": r"\cdots"}
_SPACE = (r"\,", r"\;", r"\:", r"\!", "&", r"\\", r"\displaystyle")


class Form(NamedTuple):
    """A form of writing that the reader knows, as the notation page lists it."""

    example: str  #: in TeX
    says: str  #: how it is read
    value: str  #: of the example, with the numbers of the page
    axes: str = ""  #: its free indices; none for a single number
    tokens: tuple[str, ...] = ()  #: what it begins with
    rule: str = ""  #: the method of the parser that reads on from there


#: What can be read.  The parser takes its commands from here, the notation page its table.
FORMS = (
    Form("1 + 1 = z", "both sides are the same numbers", "holds"),
    Form(r"z \le 3", "never larger", "holds"),
    Form(r"3 \ge z", "never smaller", "holds"),
    Form(
        r"R(\tau) \approx 3", "of a draw: with this mean; of samples: within their error", "holds"
    ),
    Form("2 + 3 z - z^2", "sums, products of what stands side by side, powers", "4"),
    Form(r"z \cdot z / 4", "a product, and a quotient of the two factors beside the stroke", "1"),
    Form(r"\frac{z}{4} + \tfrac12", "quotients", "1", tokens=(r"\frac",), rule="fraction"),
    Form(r"3 \big( z - 1 \big)", "brackets of any size", "3", "", ("(", "["), "bracketed"),
    Form("| 3 - 5 z |", "the absolute value", "7", tokens=("|",), rule="absolute"),
    Form("f(x)", "a function; an index that nothing binds runs over all its values", "10, 6", "x"),
    Form("(p - q)(x)", "the difference of two functions, at one place", "-0.25, 0.25", "x"),
    Form(r"\pi(0 \mid s)", "a law; its condition behind the bar", "0.2, 0.6", "s"),
    Form(r"\gamma^t r_t", "an index below, an exponent above", "1, 1, 0.75, 0.5", "t"),
    Form(r"\hat A^{(2)}_t - r_t", "an accent and a name above, no exponent", "1, 2, 3, 4", "t"),
    Form(
        r"\sum_{t=0}^{T-1} \gamma^t r_t",
        "a sum, as far as the term goes",
        "3.25",
        "",
        (r"\sum", r"\prod"),
        "over",
    ),
    Form(r"\prod_{i=1}^3 (i + z)", "a product over an index", "60"),
    Form(r"\sum_x f(x)", "a sum over all values of an index", "16"),
    Form(r"\sum_{t \ge 1} \gamma^t", "a series, cut where the rest is below rounding", "1"),
    Form("r_0 + r_1 + \\dots", "what the dots leave out, as the check says", "10"),
    Form(r"\max_x f(x)", "the largest over an index", "10"),
    Form(
        r"\min(z, 3) + \max(z, 3)",
        "the smaller, the larger",
        "5",
        "",
        (r"\min", r"\max"),
        "extreme",
    ),
    Form(
        r"\mathrm{clip}(z, 0, 1)",
        "what lies outside moved to the edge",
        "1",
        "",
        (r"\clip",),
        "clip",
    ),
    Form(r"\log e^3", "the natural logarithm of the next factor", "3", "", (r"\log",), "prefix"),
    Form(
        r"\mathbb 1[z < 3]", "1 where it holds, 0 where not", "1", "", (r"\mathbb",), "blackboard"
    ),
    Form(
        r"\begin{cases} z & \text{if } z \ge 3, \\ -z & \text{if } z < 3 \end{cases}",
        "the value whose condition holds",
        "-2",
        "",
        (r"\cases",),
        "cases",
    ),
    Form(r"\mathbb E_{x \sim p}[f(x)]", "the expectation under a law", "7"),
    Form(
        r"\mathrm{Var}_{x \sim p}[f(x)]",
        "the variance; of a vector, the sum of its components'",
        "3",
        "",
        (r"\Var",),
        "mean",
    ),
    Form(r"\mathbb E[R(\tau)]", "over all trajectories, where no law is written", "3"),
    Form(r"\mathbb E[R(\tau) \mid s_0 = s]", "given that a relation holds", "2, 6", "s"),
    Form(
        r"\mathbb E[R(\tau) \mid s_0]", "given the value in the same trajectory", "2, 2, 6", r"\tau"
    ),
    Form(
        r"\mathrm{KL}\big( p(\cdot) \,\Vert\, q(\cdot) \big)",
        "the divergence, in this order",
        "0.130812",
        "",
        (r"\KL",),
        "divergence",
    ),
    Form(
        r"\nabla L(\theta)", "the gradient of the next factor", "2, 3", "∇", (r"\nabla",), "prefix"
    ),
    Form(r"\frac{\partial L(\theta)}{\partial \theta_{s, a}}", "a component of it", "2, 3", "s, a"),
    Form(
        r"\lVert \nabla L(\theta) \rVert^2",
        "the length of a gradient",
        "13",
        "",
        (r"\lVert",),
        "norm",
    ),
)
_RULES = {token: form.rule for form in FORMS for token in form.tokens}


class Span(NamedTuple):
    """A place in the TeX of a formula: its characters from ``start`` to before ``end``."""

    tex: str
    start: int
    end: int

    @property
    def piece(self) -> str:
        """What stands there."""
        return self.tex[self.start : self.end]

    def __str__(self) -> str:
        return f'in "{self.tex}": at character {self.start}: {self.piece}'


class Unreadable(ValueError):
    """A formula that cannot be read or has no value, with the place in it."""

    def __init__(self, why: str, span: Span | None = None) -> None:
        super().__init__(why if span is None else f"{why}, {span}")
        self.why, self.span = why, span


@dataclass(frozen=True)
class Node:
    """A part of a formula, and where it stands; no part of what it says."""

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    def children(self) -> Iterator["Node"]:
        """The parts of this part, in the order of the print."""
        for each in fields(self):
            value = getattr(self, each.name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Node):
                    yield item


@dataclass(frozen=True)
class Number(Node):
    """A number as it is printed."""

    text: str


@dataclass(frozen=True)
class Symbol(Node):
    """A letter with its accent, subscripts, superscript and arguments."""

    base: str
    sub: tuple[Node, ...] = ()
    sup: tuple[Node, ...] = ()
    args: tuple[Node, ...] = ()
    bar: bool = False  #: whether the last argument stands behind a bar: π(a | s)


@dataclass(frozen=True)
class Sum(Node):
    """Terms with their signs, +1 or -1."""

    signs: tuple[int, ...]
    terms: tuple[Node, ...]


@dataclass(frozen=True)
class Dots(Node):
    """Terms that are left out."""

    number: int  #: how many others stand before these


@dataclass(frozen=True)
class Product(Node):
    """Factors."""

    factors: tuple[Node, ...]


@dataclass(frozen=True)
class Power(Node):
    """A base and an exponent."""

    base: Node
    exponent: Node


@dataclass(frozen=True)
class Fraction(Node):
    """A numerator and a denominator."""

    top: Node
    bottom: Node


@dataclass(frozen=True)
class Over(Node):
    """A sum, product or maximum over an index, from ``low`` to ``high``, or over all of it."""

    kind: str  #: "sum", "prod", "max"
    index: str
    low: Node | None
    high: Node | None
    body: Node


@dataclass(frozen=True)
class Mean(Node):
    """An expectation or a variance of ``body``, given conditions."""

    kind: str  #: "E" or "Var"
    index: str | None  #: what is drawn
    law: Node | None  #: from what
    body: Node
    given: tuple[Node, ...]


@dataclass(frozen=True)
class Divergence(Node):
    """KL(p ‖ q)."""

    first: Node
    second: Node


@dataclass(frozen=True)
class Apply(Node):
    """A function of arguments: log, min, max, clip, abs, norm, indicator, grad."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True)
class Cases(Node):
    """What holds under which condition: the first value under the first one, and so on."""

    values: tuple[Node, ...]
    conditions: tuple[Node, ...]


@dataclass(frozen=True)
class Partial(Node):
    """The derivative of ``top`` by the parameter of a state and an action."""

    top: Node
    place: tuple[Node, ...]


@dataclass(frozen=True)
class Relation(Node):
    """left, =, ≤, ≥ or ≈, right."""

    left: Node
    sign: str
    right: Node


@dataclass(frozen=True)
class Statement(Node):
    """A chain of relations; ``first`` is its first side."""

    relations: tuple[Relation, ...]


def find_tex(label: str, folder: Path) -> str:
    """The TeX of a labelled equation, from the notebooks of a folder.

    Raises:
        Unreadable: if no notebook has it.
    """
    pattern = re.compile(r"\$\$\n((?:(?!\$\$).)*?)\n\$\$ \(" + re.escape(label) + r"\)", re.DOTALL)
    for path in sorted(folder.glob("*.ipynb")):
        if f"({label})" not in (text := path.read_text(encoding="utf-8")):
            continue
        for cell in json.loads(text)["cells"]:
            if found := pattern.search("".join(cell["source"])):
                return found[1]
    raise Unreadable(f"label is {label!r}, which no notebook in {folder} defines")


def read_formula(tex: str) -> tuple[Statement, ...]:
    """The statements of a formula; what is said of it in words is left out."""
    statements = []
    for part in _parts(tex):
        statement = _Parser(part, tex).statement()
        if statement.relations:
            statements.append(statement)
    if not statements:
        raise Unreadable(f"no relation in {tex!r}")
    return tuple(statements)


def read_expression(tex: str) -> Node:
    """One expression, a general term or the pattern of a symbol say."""
    parser = _Parser(_clean(tex), tex)
    node = parser.expression()
    parser.expect_end()
    return node


def _clean(tex: str) -> str:
    """The TeX without what is there for the eye; every character stays in its place."""
    for pattern, plain in (
        (r"\\(?:begin|end)\{aligned\}", ""),
        (r"\\begin\{cases\}.*?\\end\{cases\}", _rows),
        (r"\\,\s*\\[bB]ig\|\s*\\,", r"\\mid"),
        (r"\\mathbb\{E\}", r"\\mathbb E"),
        (r"\\(?:[bB]igg?[lr]?|left|right)(?![A-Za-z])", ""),
        (r"(?<!_\{)\\(?:mathrm|operatorname)\{(Var|KL|clip)\}", r"\\\1"),
        (r"\\tfrac", r"\\frac"),
        (r"\{\}", ""),
    ):
        tex = _replaced(pattern, plain, tex)
    return tex


def _replaced(pattern: str, plain: str | Callable[[re.Match[str]], str], tex: str) -> str:
    def of_same_length(found: re.Match[str]) -> str:
        shorter = found.expand(plain) if isinstance(plain, str) else plain(found)
        return shorter.ljust(len(found[0]))

    return re.sub(pattern, of_same_length, tex, flags=re.DOTALL)


def _rows(cases: re.Match[str]) -> str:
    r"""Cases as one line: ``\cases{x \if a ; y \if b}``."""
    text = cases[0].replace(r"\begin{cases}", r"\cases{      ").replace(r"\end{cases}", "}")
    for pattern, plain in (
        (r",(?=\s*(?:\\\\|\}))", ""),
        (r"\\\\", ";"),
        (r"\\text\{ *if *\}", r"\\if"),
    ):
        text = _replaced(pattern, plain, text)
    return text


def _parts(tex: str) -> Iterator[str]:
    """The statements of a formula, without the words and the laws that stand beside them."""
    clean, found, place = _clean(tex), [], 0
    for gap in (*re.finditer(r",?\s*\\q?quad", clean), None):
        part = clean[place : gap.start() if gap else None]
        if found and re.match(r"[\s&\\]*(=|\\le|\\ge|\\approx)", part):  # it goes on
            found[-1] = found[-1].ljust(place) + part
        else:
            found.append(" " * place + part)
        place = gap.end() if gap else place
    for part in (text.rstrip().rstrip(",.;") for text in found):
        text = part.strip()
        said = re.match(r"\\text|\([^()]*=[^()]*\)$", text) or r"\sim" in _outside_brackets(text)
        if text.strip("& ") and not said:
            yield re.sub(r"\\text\{[^}]*\}.*", "", part)


def _outside_brackets(tex: str) -> str:
    while (shorter := re.sub(r"\{[^{}]*\}", "", tex)) != tex:
        tex = shorter
    return tex


def _placed(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule of the grammar whose node knows its place."""

    @wraps(rule)
    def with_place(self: "_Parser") -> Any:
        first = self.place
        node = rule(self)
        if node.span is not None or self.place == first:
            return node
        start, end = self.tokens[first][1], self.tokens[self.place - 1][2]
        return replace(node, span=Span(self.tex, start, end))

    return with_place


class _Parser:
    """Descends through one statement, token by token."""

    def __init__(self, clean: str, tex: str) -> None:
        self.tex = tex  #: as it is printed; the tokens are those of the clean one
        found = (m for m in _TOKEN.finditer(clean) if m[0] not in _SPACE)
        self.tokens = [(_SAME.get(m[0], m[0]), *m.span()) for m in found]
        self.place = 0
        self.bars = 0  # open absolute values
        self.dots = 0  # places where a sum goes on

    # ---- tokens

    def peek(self, ahead: int = 0) -> str:
        place = self.place + ahead
        return self.tokens[place][0] if place < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        token = self.peek()
        if expected and token not in expected:
            self.fail(f"expected {' or '.join(expected)}")
        self.place += 1
        return token

    def fail(self, why: str) -> None:
        where = self.tokens[self.place][1] if self.place < len(self.tokens) else len(self.tex)
        marked = f"{self.tex[:where]} ⟶ {self.tex[where:]}"
        raise Unreadable(f"{why} at character {where}, here: {marked}")

    def expect_end(self) -> None:
        if self.peek():
            self.fail(f"cannot read {self.peek()!r}")

    # ---- from loose to tight

    @_placed
    def statement(self) -> Statement:
        relations: list[Relation] = []
        left = None if self.peek() in RELATIONS else self.expression()
        while self.peek() in RELATIONS:
            sign = RELATIONS[self.take()]
            right = self.expression()
            left = left or Symbol(BEFORE)
            span = Span(self.tex, (left.span or right.span).start, right.span.end)
            relations.append(Relation(left, sign, right, span=span))
            left = right
        self.expect_end()
        return Statement(tuple(relations))

    @_placed
    def expression(self) -> Node:
        signs, terms = [-1 if self.peek() == "-" else 1], []
        if self.peek() in ("+", "-"):
            self.take()
        terms.append(self.term())
        while self.peek() in ("+", "-"):
            signs.append(-1 if self.take() == "-" else 1)
            terms.append(self.term())
        return terms[0] if len(terms) == 1 and signs == [1] else Sum(tuple(signs), tuple(terms))

    @_placed
    def term(self) -> Node:
        if self.peek() == r"\cdots":
            self.take()
            self.dots += 1
            return Dots(self.dots - 1)
        factors = [self.factor()]
        while self.starts_factor():
            if self.peek() == r"\cdot":
                self.take()
                factors.append(self.factor())
            elif self.peek() == "/":
                self.take()
                factors[-1] = Fraction(factors[-1], self.factor())
            else:
                factors.append(self.factor())
        return factors[0] if len(factors) == 1 else Product(tuple(factors))

    def starts_factor(self) -> bool:
        token = self.peek()
        closes = token == "|" and self.bars > 0
        return not closes and token not in _ENDS and token not in RELATIONS

    @_placed
    def factor(self) -> Node:
        node = self.atom()
        while self.peek() == "^":
            self.take()
            node = Power(node, self.script())
        return node

    @_placed
    def atom(self) -> Node:
        token = self.peek()
        if re.match(r"\d", token):
            return Number(self.take())
        return getattr(self, _RULES.get(token, "symbol"))()

    def absolute(self) -> Node:
        self.take()
        self.bars += 1
        body = self.expression()
        self.bars -= 1
        self.take("|")
        return Apply("abs", (body,))

    def norm(self) -> Node:
        self.take()
        body = self.expression()
        self.take(r"\rVert")
        return Apply("norm", (body,))

    def bracketed(self) -> Node:
        self.take("(", "[")
        body = self.expression()
        self.take(")", "]")
        # (π_θ - π_θ')(a | s) is the difference of both at (a | s).
        if isinstance(body, Sum) and self.peek() == "(" and _all_bare(body):
            args, bar = self.arguments()
            terms = tuple(replace(s, args=args, bar=bar) for s in body.terms)  # type: ignore[type-var]
            return Sum(body.signs, terms)
        return body

    def fraction(self) -> Node:
        self.take()
        if self.peek() == "{" and self.peek(1) == r"\partial":
            self.take(), self.take()
            top = self.expression()
            self.take("}"), self.take("{"), self.take(r"\partial")
            variable = self.symbol()
            self.take("}")
            return Partial(top, variable.sub + variable.args)
        return Fraction(self.group(), self.group())

    def group(self) -> Node:
        if self.peek() != "{":  # \\frac12: each digit is a group
            token, start, end = self.tokens[self.place]
            if len(token) > 1 and token.isdigit():
                digits = (token[0], start, start + 1), (token[1:], start + 1, end)
                self.tokens[self.place : self.place + 1] = digits
            return self.script()
        self.take("{")
        body = self.expression()
        self.take("}")
        return body

    def over(self) -> Node:
        kind = self.take()[1:]
        low = high = None
        self.take("_")
        if self.peek() == "{":
            self.take()
            index = self.index()
            if self.peek() == "=":
                self.take()
                low = self.expression()
            elif self.peek() == r"\ge":
                self.take()
                low, high = self.expression(), Symbol(r"\infty")
            elif self.peek() == r"\in":
                while self.peek() != "}":
                    self.take()
            self.take("}")
        else:
            index = self.index()
        if self.peek() == "^":
            self.take()
            high = self.script()
        return Over(kind, index, low, high, self.term())

    def index(self) -> str:
        name = self.take()
        while self.peek() == "'":
            name += self.take()
        return name

    def prefix(self) -> Node:
        name = {r"\nabla": "grad", r"\log": "log"}[self.take()]
        if self.peek() == "_":
            self.take()
            self.script()
        return Apply(name, (self.factor(),))

    def extreme(self) -> Node:
        name = self.take()[1:]
        if self.peek() == "_":
            self.take()
            return Over(name, self.index(), None, None, self.term())
        return Apply(name, self.plain_arguments())

    def clip(self) -> Node:
        self.take()
        return Apply("clip", self.plain_arguments())

    def plain_arguments(self) -> tuple[Node, ...]:
        return self.arguments()[0]

    def blackboard(self) -> Node:
        self.take()
        letter = self.take("E", "1")
        if letter == "E":
            return self.mean(taken=True)
        self.take("[")
        statement = self.relation_inside()
        self.take("]")
        return Apply("indicator", (statement,))

    @_placed
    def relation_inside(self) -> Node:
        left, inside = self.expression(), RELATIONS | {"<": "<", ">": ">"}
        if self.peek() in inside:
            sign = inside[self.take()]
            return Relation(left, sign, self.expression())
        return left

    def cases(self) -> Node:
        self.take(), self.take("{")
        values, conditions = [], []
        while True:
            values.append(self.expression())
            self.take(r"\if")
            conditions.append(self.relation_inside())
            if self.take(";", "}") == "}":
                return Cases(tuple(values), tuple(conditions))

    def mean(self, *, taken: bool = False) -> Node:
        kind = "E" if taken else self.take()[1:]
        index, law = None, None
        if self.peek() == "_":
            self.take()
            if self.peek() == "{":
                self.take()
                index = self.index()
                if self.peek() == r"\sim":
                    self.take()
                    law = self.symbol()
                self.take("}")
            else:
                index = self.index()
        self.take("[")
        body = self.expression()
        given: list[Node] = []
        while self.peek() in (r"\mid", ","):
            self.take()
            if self.peek() == "\\ ":
                self.take()
            given.append(self.relation_inside())
        self.take("]")
        mean = Mean(kind, index, law, body, tuple(given))
        if self.peek() == "^":
            self.take()
            return Power(mean, self.script())
        return mean

    def divergence(self) -> Node:
        self.take()
        self.take("(")
        first = self.symbol()
        self.take(r"\Vert")
        second = self.symbol()
        self.take(")")
        return Divergence(first, second)

    # ---- symbols

    @_placed
    def symbol(self) -> Any:
        token = self.take()
        if token in (r"\hat", r"\bar", r"\tilde", r"\mathcal", r"\mathbf"):
            brace = self.peek() == "{"
            if brace:
                self.take()
            base = f"{token}{{{self.take()}}}"
            if brace:
                self.take("}")
        elif re.fullmatch(r"\\[A-Za-z]+|[A-Za-z]", token):
            base = token
        else:
            self.place -= 1
            self.fail(f"cannot read {token!r}")
        sub: tuple[Node, ...] = ()
        sup: tuple[Node, ...] = ()
        while self.peek() in ("'", "_", "^"):
            if self.peek() == "'":
                base += self.take()
            elif self.peek() == "_":
                self.take()
                sub = self.scripts()
            elif self.peek(1) in ("{", "n", "*") and self.is_label():
                self.take()
                sup = self.scripts()
            else:
                break
        args, bar = (), False
        if self.peek() in ("(", "[") and self.takes_arguments(base, sub):
            args, bar = self.arguments()
        return Symbol(base, sub, sup, args, bar)

    def takes_arguments(self, base: str, sub: tuple[Node, ...]) -> bool:
        """Whether a bracket behind a symbol holds its arguments, and no factor."""
        functions = ("P", "R", "J", "L", "Q", "V", "A", "B", "H", "d", "e", "f", "g", "h", "p", "q")
        functions += ("r", "u", r"\pi", r"\rho", r"\hat{A}", r"\bar{A}", r"\Phi", r"\theta", "F")
        return base.rstrip("'") in functions and not (base == "r" and sub)

    def is_label(self) -> bool:
        """Whether a superscript names the symbol, or its sample, and is no exponent."""
        text = "".join(self.peek(i) for i in range(1, 12))
        return bool(re.match(r"n(?![A-Za-z0-9])|\*|\{\\mathrm\{GAE|\{\(", text))

    def scripts(self) -> tuple[Node, ...]:
        if self.peek() != "{":
            return (self.script(),)
        self.take()
        found = [self.script_item()]
        while self.peek() == ",":
            self.take()
            found.append(self.script_item())
        self.take("}")
        return tuple(found)

    @_placed
    def script_item(self) -> Node:
        if self.peek() in (r"\max", r"\min"):
            return Symbol(self.take())
        if self.peek() in (r"\mathrm", r"\text"):
            self.take(), self.take("{")
            name = ""
            while self.peek() != "}":
                name += self.take()
            self.take("}")
            return Symbol(name)
        return self.expression()

    @_placed
    def script(self) -> Node:
        if self.peek() == "{":
            self.take()
            node = self.script_item()
            self.take("}")
            return node
        token = self.take()
        if re.match(r"\d", token):
            return Number(token)
        while self.peek() == "'":
            token += self.take()
        return Symbol(token)

    def arguments(self) -> tuple[tuple[Node, ...], bool]:
        self.take("(", "[")
        args, bar = [self.argument()], False
        while self.peek() in (",", ";", r"\mid"):
            bar |= self.take() == r"\mid"
            args.append(self.argument())
        self.take(")", "]")
        return tuple(args), bar

    @_placed
    def argument(self) -> Node:
        if self.peek() == r"\cdot":
            self.take()
            return Symbol(r"\cdot")
        return self.relation_inside()


def _all_bare(node: Sum) -> bool:
    return all(isinstance(term, Symbol) and not term.args for term in node.terms)
