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
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from lark import Lark, Token
from lark.exceptions import UnexpectedInput, UnexpectedToken

BEFORE = r"\before"  #: the left side of a formula that begins with its relation
RELATIONS = {"=": "=", r"\le": "<=", r"\ge": ">=", r"\approx": "~"}


class Form(NamedTuple):
    """A form of writing that the reader knows, as the notation page lists it."""

    example: str  #: in TeX
    says: str  #: how it is read
    value: str  #: of the example, with the numbers of the page
    axes: str  #: its free indices; none for a single number
    rules: tuple[str, ...] = ()  #: what it adds to the grammar: alternatives of a factor


#: What can be read.  The grammar takes its factors from here, the notation page its table.
FORMS = (
    Form("1 + 1 = z", "both sides are the same numbers", "holds", ""),
    Form(r"z \le 3", "never larger", "holds", ""),
    Form(r"3 \ge z", "never smaller", "holds", ""),
    Form(
        r"R(\tau) \approx 3",
        "of a draw: with this mean; of samples: within their error",
        "holds",
        "",
    ),
    Form("2 + 3 z - z^2", "sums, products side by side, powers", "4", "", ("number",)),
    Form(r"z \cdot z / 4", "a product; a quotient of the factors beside the stroke", "1", ""),
    Form(
        r"\frac{z}{4} + \tfrac12",
        "quotients",
        "1",
        "",
        (r'"\\frac" "{" expression "}" "{" expression "}" -> fraction', "FRACTION -> digits"),
    ),
    Form(r"3 \big( z - 1 \big)", "brackets of any size", "3", "", ("bracket",)),
    Form("| 3 - 5 z |", "the absolute value", "7", "", ('"⟦" expression "⟧" -> absolute',)),
    Form(
        "f(x)",
        "a function; an index that nothing binds runs over all its values",
        "10, 6",
        "x",
        ("symbol",),
    ),
    Form(
        "(p - q)(x)",
        "the difference of two functions, at one place",
        "-0.25, 0.25",
        "x",
        ("bracket args -> at",),
    ),
    Form(r"\pi(0 \mid s)", "a law; its condition behind the bar", "0.2, 0.6", "s"),
    Form(r"\gamma^t r_t", "an index below, an exponent above", "1, 1, 0.75, 0.5", "t"),
    Form(r"\hat A^{(2)}_t - r_t", "an accent, and a name above", "1, 2, 3, 4", "t"),
    Form(
        r"\sum_{t=0}^{T-1} \gamma^t r_t",
        "a sum, as far as the term goes",
        "3.25",
        "",
        (r'OVER "_" range ("^" script)? term -> over',),
    ),
    Form(r"\prod_{i=1}^3 (i + z)", "a product over an index", "60", ""),
    Form(r"\sum_x f(x)", "a sum over all values of an index", "16", ""),
    Form(r"\sum_{t \ge 1} \gamma^t", "a series, cut below rounding", "1", ""),
    Form(r"r_0 + r_1 + \dots", "what the dots leave out, as the check says", "10", ""),
    Form(
        r"\max_x f(x)", "the largest over an index", "10", "", (r'EXTREME "_" range term -> over',)
    ),
    Form(
        r"\min(z, 3) + \max(z, 3)", "the smaller, the larger", "5", "", ("EXTREME args -> named",)
    ),
    Form(
        r"\mathrm{clip}(z, 0, 1)",
        "what lies outside moved to the edge",
        "1",
        "",
        ("CLIP args -> named",),
    ),
    Form(
        r"\log e^3", "the natural logarithm of the next factor", "3", "", ("LOG power -> prefix",)
    ),
    Form(
        r"\mathbb 1[z < 3]",
        "1 where it holds, 0 where not",
        "1",
        "",
        (r'"\\mathbb" "1" "[" inside "]" -> indicator',),
    ),
    Form(
        r"\begin{cases} z & \text{if } z \ge 3, \\ -z & \text{if } z < 3 \end{cases}",
        "the value whose condition holds",
        "-2",
        "",
        (r'"\\cases" "{" _case (";" _case)* "}" -> cases',),
    ),
    Form(
        r"\mathbb E_{x \sim p}[f(x)]",
        "the expectation under a law",
        "7",
        "",
        (r'MEAN ("_" drawn)? "[" expression (("\\mid" | ",") "\\ "? inside)* "]" -> mean',),
    ),
    Form(
        r"\mathrm{Var}_{x \sim p}[f(x)]",
        "the variance; of a vector, the sum of its components'",
        "3",
        "",
    ),
    Form(r"\mathbb E[R(\tau)]", "over all trajectories, where no law is written", "3", ""),
    Form(r"\mathbb E[R(\tau) \mid s_0 = s]", "given that a relation holds", "2, 6", "s"),
    Form(
        r"\mathbb E[R(\tau) \mid s_0]", "given the value in the same trajectory", "2, 2, 6", r"\tau"
    ),
    Form(
        r"\mathrm{KL}\big( p(\cdot) \,\Vert\, q(\cdot) \big)",
        "the divergence, in this order",
        "0.130812",
        "",
        (r'"\\KL" "(" symbol "\\Vert" symbol ")" -> divergence',),
    ),
    Form(
        r"\nabla L(\theta)",
        "the gradient of the next factor",
        "2, 3",
        "∇",
        (r'NABLA ("_" script)? power -> prefix',),
    ),
    Form(
        r"\frac{\partial L(\theta)}{\partial \theta_{s, a}}",
        "a component of it",
        "2, 3",
        "s, a",
        (r'"\\frac" "{" "\\partial" expression "}" "{" "\\partial" symbol "}" -> partial',),
    ),
    Form(
        r"\lVert \nabla L(\theta) \rVert^2",
        "the length of a gradient",
        "13",
        "",
        (r'"\\lVert" expression "\\rVert" -> norm',),
    ),
)

#: The grammar around them.  An ``upper`` index that names a symbol or its sample is no exponent.
GRAMMAR = r"""
statement: expression? (RELATION expression)*
expression: SIGN? term (SIGN term)*
?term: dots | product
dots: "\\cdots" | "\\dots"
product: quotient (_CDOT? quotient)*
quotient: power ("/" power)*
power: factor ("^" script)*
?factor: FACTORS

number: NUMBER
bracket: "(" expression ")" | "[" expression "]"
range: index | "{" index ((RELATION expression) | ("\\in" symbol))? "}"
index: (LETTER | FUNCTION) PRIME*
drawn: index | "{" index ("\\sim" symbol)? "}"
_case: expression "\\if" inside
?inside: expression | expression (RELATION | LESS) expression -> compare

symbol: FUNCTION (PRIME | sub | sup)* args? | LETTER (PRIME | sub | sup)*
sub: "_" _scripts
sup: _UPPER _scripts
_scripts: "{" item ("," item)* "}" | simple
?script: "{" item "}" | simple
?item: expression | ("\\mathrm" | "\\text") "{" (LETTER | FUNCTION)+ "}" -> simple
    | EXTREME -> simple
simple: (LETTER | FUNCTION | MARK) PRIME* | NUMBER
args: "(" argument (("," | ";" | BAR) argument)* ")" | "[" argument ("," argument)* "]"
?argument: inside | _CDOT -> dot

RELATION.2: /=|\\(le|ge|approx)(?![a-z])/
LESS: "<" | ">"
SIGN: "+" | "-"
_CDOT.2: /\\cdot(?![a-z])/
OVER.2: "\\sum" | "\\prod"
EXTREME.2: "\\min" | "\\max"
CLIP.2: "\\clip"
LOG.2: "\\log"
NABLA.2: "\\nabla"
MEAN.2: /\\mathbb\s*E|\\Var/
FRACTION.2: /\\frac\s*\d\s*[\dA-Za-z]/
BAR.2: "\\mid"
MARK: "*" | "-"
PRIME: "'"
_UPPER.2: /\^(?=\s*(n(?![A-Za-z0-9])|\*|-\(|\{\\mathrm\{GAE|\{\())/
NUMBER: /\d+(\.\d+)?/
FUNCTION.1: /\\(hat|bar)\s*(\{\s*A\s*\}|A)|\\(pi|rho|Phi|theta)(?![A-Za-z])|[ABFHJLPQRVdefghpqru]/
LETTER: /\\(hat|bar|tilde|mathcal|mathbf)\s*(\{\s*\\?[A-Za-z]+\s*\}|\\[A-Za-z]+|[A-Za-z])/
    | /\\(?!cdots|dots)[A-Za-z]+|[A-Za-z]/
%ignore /\s+|&|\\[,;:!\\]|\\displaystyle/
"""


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
        statement = _read(part, tex, "statement")
        if statement.relations:
            statements.append(statement)
    if not statements:
        raise Unreadable(f"no relation in {tex!r}")
    return tuple(statements)


@cache
def read_expression(tex: str) -> Node:
    """One expression, a general term or the pattern of a symbol say."""
    return _read(_clean(tex), tex, "expression")


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
    sides = cycle("⟦⟧")  # of absolute values, which do not stand in each other
    return re.sub(r"\|", lambda _: next(sides), tex)


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


_ACCENT = re.compile(r"(\\(?:hat|bar|tilde|mathcal|mathbf))\s*\{?\s*(\\?[A-Za-z]+)\s*\}?")


@cache
def _parser(forms: tuple[Form, ...] = FORMS) -> Lark:
    """The parser of the grammar with these forms of a factor."""
    factors = "\n    | ".join(rule for form in forms for rule in form.rules)
    return Lark(
        GRAMMAR.replace("FACTORS", factors),
        start=["statement", "expression"],
        parser="lalr",
        propagate_positions=True,
    )


def _read(clean: str, tex: str, start: str) -> Any:
    """A tree of nodes that know their place in the print; the clean TeX has the same places."""
    try:
        return _Builder(tex).build(_parser().parse(clean, start=start))
    except UnexpectedInput as error:
        where = error.pos_in_stream
        if isinstance(error, UnexpectedToken) and error.token.type == "$END":
            where = len(tex)
        found = f"cannot read {tex[where]!r}" if where < len(tex) else "expected more"
        marked = f"{tex[:where]} ⟶ {tex[where:]}"
        raise Unreadable(f"{found} at character {where}, here: {marked}") from None


class _Builder:
    """Makes a node of each rule that the parser has found; a method for each rule."""

    def __init__(self, tex: str) -> None:
        self.tex = tex
        self.dots_seen = 0

    def build(self, tree: Any) -> Any:
        """The node of a rule, or what it is to the rule above it."""
        if isinstance(tree, Token):
            return tree
        made = getattr(self, tree.data)([self.build(part) for part in tree.children])
        if isinstance(made, Node) and made.span is None and not tree.meta.empty:
            made = replace(made, span=Span(self.tex, tree.meta.start_pos, tree.meta.end_pos))
        return made

    # ---- from loose to tight

    def statement(self, parts: list[Any]) -> Statement:
        left = Symbol(BEFORE) if not parts or isinstance(parts[0], Token) else parts.pop(0)
        relations = []
        for sign, right in zip(parts[::2], parts[1::2], strict=True):
            span = Span(self.tex, (left.span or right.span).start, right.span.end)
            relations.append(Relation(left, RELATIONS[sign], right, span=span))
            left = right
        return Statement(tuple(relations))

    def expression(self, parts: list[Any]) -> Node:
        signed = isinstance(parts[0], Token)
        first = [Token("SIGN", "+"), *parts] if not signed else parts
        signs = tuple(-1 if sign == "-" else 1 for sign in first[::2])
        terms = tuple(first[1::2])
        return terms[0] if len(terms) == 1 and signs == (1,) else Sum(signs, terms)

    def dots(self, _: list[Any]) -> Dots:
        self.dots_seen += 1
        return Dots(self.dots_seen - 1)

    def product(self, parts: list[Any]) -> Node:
        factors = [factor for part in parts for factor in _as_list(part)]
        return factors[0] if len(factors) == 1 else Product(tuple(factors))

    def quotient(self, parts: list[Any]) -> Any:
        return _of_the_last(parts, Fraction)

    def power(self, parts: list[Any]) -> Any:
        return _of_the_last(parts, Power)

    # ---- factors

    def number(self, parts: list[Any]) -> Number:
        return Number(str(parts[0]))

    def bracket(self, parts: list[Any]) -> Node:
        return parts[0]

    def at(self, parts: list[Any]) -> Any:
        # (π_θ - π_θ')(a | s) is the difference of both at (a | s); else it is a product.
        body, (args, bar) = parts
        if isinstance(body, Sum) and _all_bare(body):
            terms = (replace(s, args=args, bar=bar) for s in body.terms)  # type: ignore[type-var]
            return Sum(body.signs, tuple(terms))
        if len(args) > 1:
            raise Unreadable("cannot read a list behind a bracket", args[0].span)
        return [body, *args]

    def fraction(self, parts: list[Any]) -> Fraction:
        return Fraction(*parts)

    def digits(self, parts: list[Any]) -> Fraction:
        (token,) = parts  # \frac1N
        places = [i for i, letter in enumerate(token) if i > 4 and not letter.isspace()]
        halves = []
        for i in places:
            kind = Number if token[i].isdigit() else Symbol
            place = token.start_pos + i
            halves.append(kind(token[i], span=Span(self.tex, place, place + 1)))
        return Fraction(*halves)

    def partial(self, parts: list[Any]) -> Partial:
        top, variable = parts
        return Partial(top, variable.sub + variable.args)

    def over(self, parts: list[Any]) -> Over:
        kind, (index, low, high), *upper, body = parts
        return Over(kind[1:], index, low, upper[0] if upper else high, body)

    def range(self, parts: list[Any]) -> tuple[Any, ...]:
        if len(parts) == 3 and parts[1] in RELATIONS:
            return parts[0], parts[2], Symbol(r"\infty") if parts[1] == r"\ge" else None
        return parts[0], None, None

    def index(self, parts: list[Any]) -> str:
        return "".join(parts)

    def prefix(self, parts: list[Any]) -> Any:
        name, (first, *rest) = parts[0], _as_list(parts[-1])
        applied = Apply({r"\nabla": "grad", r"\log": "log"}[name], (first,))
        return [applied, *rest] if rest else applied

    def named(self, parts: list[Any]) -> Apply:
        return Apply(parts[0][1:], parts[1][0])

    def absolute(self, parts: list[Any]) -> Apply:
        return Apply("abs", tuple(parts))

    def norm(self, parts: list[Any]) -> Apply:
        return Apply("norm", tuple(parts))

    def indicator(self, parts: list[Any]) -> Apply:
        return Apply("indicator", tuple(parts))

    def mean(self, parts: list[Any]) -> Mean:
        kind, *parts = parts
        drawn = parts.pop(0) if isinstance(parts[0], tuple) else (None, None)
        body, *given = parts
        return Mean("Var" if kind == r"\Var" else "E", *drawn, body, tuple(given))

    def drawn(self, parts: list[Any]) -> tuple[Any, Any]:
        return parts[0], parts[1] if len(parts) > 1 else None

    def divergence(self, parts: list[Any]) -> Divergence:
        return Divergence(*parts)

    def cases(self, parts: list[Any]) -> Cases:
        return Cases(tuple(parts[::2]), tuple(parts[1::2]))

    def compare(self, parts: list[Any]) -> Relation:
        left, sign, right = parts
        return Relation(left, RELATIONS.get(sign, str(sign)), right)

    # ---- symbols

    def symbol(self, parts: list[Any]) -> Symbol:
        base, known = str(parts[0]), dict[str, Any]()
        if accented := _ACCENT.fullmatch(base):
            base = f"{accented[1]}{{{accented[2]}}}"
        for part in parts[1:]:
            if isinstance(part, Token):
                base += part
            elif isinstance(part, dict):
                known |= part
            else:
                known |= dict(zip(("args", "bar"), part, strict=True))
        return Symbol(base, **known)

    def sub(self, parts: list[Any]) -> dict[str, Any]:
        return {"sub": tuple(parts)}

    def sup(self, parts: list[Any]) -> dict[str, Any]:
        return {"sup": tuple(parts)}

    def simple(self, parts: list[Any]) -> Node:
        text = "".join(parts)
        return Number(text) if text[0].isdigit() else Symbol(text)

    def args(self, parts: list[Any]) -> tuple[tuple[Node, ...], bool]:
        bar = any(isinstance(part, Token) for part in parts)
        return tuple(part for part in parts if isinstance(part, Node)), bar

    def dot(self, _: list[Any]) -> Symbol:
        return Symbol(r"\cdot")


def _as_list(part: Any) -> list[Any]:
    """The factors of a part: one, or those that a bracket behind a bracket makes of it."""
    return part if isinstance(part, list) else [part]


def _of_the_last(parts: list[Any], kind: type[Fraction] | type[Power]) -> Any:
    """Quotients or powers, of the last one where a part holds several factors."""
    *before, node = _as_list(parts[0])
    for i, part in enumerate(parts[1:], start=2):
        # The whole of what was read gets its place from there, with its brackets.
        whole = i == len(parts) and not before
        span = None if whole else Span(node.span.tex, node.span.start, part.span.end)
        node = kind(node, part, span=span)
    return [*before, node] if before else node


def _all_bare(node: Sum) -> bool:
    return all(isinstance(term, Symbol) and not term.args for term in node.terms)
