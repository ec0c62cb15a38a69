"""A Sphinx extension: the directive ``reference`` is a page of all functions, from the docstrings.

The rooms of the library are read and not imported, so that a build needs no second for torch.
Every equation that a docstring names is a link to it, and every function that a page names in its
text or in a table is a link to its entry: the first time in each section.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.core import publish_doctree
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

LIBRARY = Path(__file__).resolve().parents[1] / "ppo_lib"
PAGE = "book/reference"
LANGUAGE = re.compile(r"book/1[01]-")
#: In the order of the page.
ROOMS = (
    "returns", "objectives", "distributions", "policies", "rollout", "ppo", "config",
    "normalizers", "envs", "evaluate", "history", "checkpoint", "audit", "exact.mdp",
)  # fmt: skip
LINE = 72  #: a longer signature has a line for each parameter

INLINE = re.compile(
    r"``(?P<code>.+?)``|`(?P<name>[\w.]+)`|\b(?P<label>eq-[a-z][a-z0-9-]*)|\b(?P<paper>arXiv:\d+\.\d+)"
)
HEAD = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
FIELD = re.compile(r"(\*{0,2}\w+(?:, \w+)*): (.*)", re.DOTALL)
COMMENT = re.compile(r"#: (.*)")
HALF, DD = re.compile(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", re.DOTALL), re.compile(r"<(/?)dd>")


class Entry(NamedTuple):
    """A function, class, method or field of a room."""

    name: str  #: with its class before it, but not the room
    kind: str  #: "function", "class", "method" or "attribute"
    parameters: list[str]  #: as they are written, with types and defaults; of an attribute none
    gives: str  #: the type behind the arrow or the colon, or nothing
    says: str  #: the docstring, its indentation taken away
    inside: list["Entry"]  #: of a class


# -- reading ---------------------------------------------------------------------------------


@cache
def source(room: str) -> str:
    """The text of a room."""
    return LIBRARY.joinpath(*room.split(".")).with_suffix(".py").read_text(encoding="utf-8")


@cache
def room_says(room: str) -> str:
    """The docstring of a room."""
    return ast.get_docstring(ast.parse(source(room))) or ""


@cache
def entries(room: str) -> list[Entry]:
    """The public functions and classes of a room, in the order of its file."""
    tree = ast.parse(source(room))
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and public(node):
            found.append(function(node))
        elif isinstance(node, ast.ClassDef) and public(node):
            found.append(class_(node, source(room).splitlines()))
    return found


def public(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether it is there for others, and says what it does."""
    return not node.name.startswith("_") and ast.get_docstring(node) is not None


def function(node: ast.FunctionDef, owner: str = "") -> Entry:
    """A function, or a method of a class."""
    written = {ast.unparse(each) for each in node.decorator_list}
    given = parameters(node, bound=bool(owner) and "staticmethod" not in written)
    name, says = f"{owner}{node.name}", ast.get_docstring(node) or ""
    gives = ast.unparse(node.returns) if node.returns else ""
    if "property" in written:
        return Entry(name, "attribute", [], gives, says, [])
    return Entry(name, "method" if owner else "function", given, gives, says, [])


def parameters(node: ast.FunctionDef, *, bound: bool) -> list[str]:
    """The parameters as they are written; of a method without the first."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + a.defaults
    shown = [parameter(x, d) for x, d in zip(positional, defaults, strict=True)][int(bound) :]
    if a.vararg:
        shown.append("*" + parameter(a.vararg, None))
    elif a.kwonlyargs:
        shown.append("*")
    shown += [parameter(x, d) for x, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    return shown + (["**" + parameter(a.kwarg, None)] if a.kwarg else [])


def parameter(arg: ast.arg, default: ast.expr | None) -> str:
    """``name: type = default``."""
    kind = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
    equals = " = " if kind else "="
    return arg.arg + kind + (equals + ast.unparse(default) if default else "")


def class_(node: ast.ClassDef, lines: list[str]) -> Entry:
    """A class with its fields, in so far as they say what they are, and its public methods."""
    given, inside = [], []
    for i, part in enumerate(node.body):
        if isinstance(part, ast.FunctionDef):
            if part.name == "__init__":
                given = parameters(part, bound=True)
            elif public(part):
                inside.append(function(part, f"{node.name}."))
        elif isinstance(part, ast.AnnAssign):
            behind = node.body[i + 1] if i + 1 < len(node.body) else None
            comment = COMMENT.search(lines[part.end_lineno - 1])
            says = comment[1] if comment else docstring(behind)
            if says:
                kind = ast.unparse(part.annotation)
                kind += f" = {ast.unparse(part.value)}" if part.value else ""
                name = f"{node.name}.{ast.unparse(part.target)}"
                inside.append(Entry(name, "attribute", [], kind, says, []))
    return Entry(node.name, "class", given, "", ast.get_docstring(node) or "", inside)


def docstring(node: ast.stmt | None) -> str:
    """The text of a string that stands alone."""
    alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return " ".join(node.value.value.split()) if alone and isinstance(node.value.value, str) else ""


@cache
def names() -> dict[str, str]:
    """What a page may call an entry, and its full name; what two rooms have is nobody's."""
    found: dict[str, list[str]] = {}
    for room in ROOMS:
        for entry in entries(room):
            for each in (entry, *entry.inside):
                if each is entry or each.kind == "method":
                    found.setdefault(each.name, []).append(f"{room}.{each.name}")
    return {name: full[0] for name, full in found.items() if len(full) == 1}


# -- writing ---------------------------------------------------------------------------------


def inline(words: str, page: str, owner: str = "") -> list[nodes.Node]:
    """A line of a docstring: code, names of others, numbers of equations, papers."""
    found: list[nodes.Node] = []
    end = 0
    for match in INLINE.finditer(words):
        found.append(nodes.Text(words[end : match.start()]))
        end = match.end()
        if match["label"]:
            xref = addnodes.pending_xref(
                "", nodes.literal("", match["label"]), refdomain="math", reftype="eq",
                reftarget=match["label"], refdoc=page, refexplicit=False, refwarn=True,
            )  # fmt: skip
            found.append(xref)
        elif match["paper"]:
            number = match["paper"].removeprefix("arXiv:")
            found.append(
                nodes.reference("", match["paper"], refuri=f"https://arxiv.org/abs/{number}")
            )
        else:
            word = match["code"] or match["name"]
            full = match["name"] and (names().get(word) or names().get(f"{owner}.{word}"))
            found.append(link(full, word, page) if full else nodes.literal("", word))
    return [*found, nodes.Text(words[end:])]


def link(full: str, word: str, page: str) -> addnodes.pending_xref:
    """A name in the code that leads to its entry."""
    return addnodes.pending_xref(
        "", nodes.literal("", word), refdomain="py", reftype="obj", reftarget=full, refdoc=page,
        refexplicit=True, refwarn=True,
    )  # fmt: skip


def blocks(says: str, page: str, owner: str = "") -> list[nodes.Node]:
    """A docstring as paragraphs, tables and lists."""
    found: list[nodes.Node] = []
    for block in re.split(r"\n\s*\n", says):
        head = HEAD.match(block)
        if head:
            found += part(head[1], block[head.end() :], page, owner)
        elif block.startswith("==="):
            found.append(publish_doctree(block).next_node(nodes.table))
        elif block.strip():
            words = " ".join(block.split())
            found.append(nodes.paragraph("", "", *inline(words, page, owner)))
    return found


def part(head: str, body: str, page: str, owner: str) -> list[nodes.Node]:
    """Arguments, attributes or errors as a list; what is returned as a paragraph."""
    title = nodes.paragraph("", "", nodes.strong("", head))
    lines = [line[4:] for line in body.strip("\n").split("\n")]
    items = re.split(r"\n(?! )", "\n".join(lines))
    fields = [FIELD.fullmatch(item) for item in items]
    if head in ("Returns", "Yields") or not all(fields):
        words = " ".join(body.split())
        title += [nodes.Text(": "), *inline(words, page, owner)]
        return [title]
    listed = nodes.definition_list(classes=["simple"])
    for field in fields:
        term = nodes.term("", "", nodes.literal("", field[1]))
        words = inline(" ".join(field[2].split()), page, owner)
        listed += nodes.definition_list_item(
            "", term, nodes.definition("", nodes.paragraph("", "", *words))
        )
    return [title, listed]


class Reference(SphinxDirective):
    """``{reference}``, without arguments."""

    def run(self) -> list[nodes.Node]:
        """What there is, and then a section for each room with an entry for each function."""
        return [self.contents(), *(self.room(room) for room in ROOMS)]

    def contents(self) -> nodes.bullet_list:
        """The names of all entries, room by room."""
        listed = nodes.bullet_list(classes=["rooms"])
        for room in ROOMS:
            line = nodes.paragraph("", "", nodes.strong("", f"{room}: "))
            for i, entry in enumerate(entries(room)):
                full = f"{room}.{entry.name}"
                line += [nodes.Text(", " * bool(i)), link(full, entry.name, self.env.docname)]
            listed += nodes.list_item("", line)
        return listed

    def room(self, room: str) -> nodes.section:
        """The entries of a room."""
        path = LIBRARY.joinpath(*room.split(".")).with_suffix(".py")
        self.env.note_dependency(str(path))
        title = nodes.title("", "", nodes.literal("", room))
        section = nodes.section("", title, ids=[f"room-{room.replace('.', '-')}"])
        section += blocks(room_says(room), self.env.docname)
        section += [self.entry(entry, room) for entry in entries(room)]
        return section

    def entry(self, entry: Entry, room: str) -> addnodes.desc:
        """A signature, and what the docstring says."""
        module, full = f"ppo_lib.{room}", f"ppo_lib.{room}.{entry.name}"
        owner, _, name = entry.name.rpartition(".")
        signature = addnodes.desc_signature("", "", ids=[full], _toc_name="", _toc_parts=())
        signature["module"], signature["fullname"], signature["class"] = module, entry.name, owner
        if entry.kind == "class":
            signature += addnodes.desc_annotation("", "class ")
        if not owner:
            signature += addnodes.desc_addname("", f"{module}.")
        signature += addnodes.desc_name("", name)
        long = len(name + ", ".join(entry.parameters) + entry.gives) > LINE
        if entry.kind in ("function", "method") or entry.parameters:
            listed = addnodes.desc_parameterlist("", "", multi_line_parameter_list=long)
            listed += [addnodes.desc_parameter("", words) for words in entry.parameters]
            signature += listed
        if entry.gives:
            attribute = entry.kind == "attribute"
            kind = addnodes.desc_annotation("", f": {entry.gives}")
            signature += kind if attribute else addnodes.desc_returns("", entry.gives)
        # Without "ppo_lib", which a search for PPO would find.
        self.env.get_domain("py").note_object(
            f"{room}.{entry.name}", entry.kind, full, location=signature
        )
        content = addnodes.desc_content()
        content += blocks(entry.says, self.env.docname, owner or entry.name)
        content += [self.entry(each, room) for each in entry.inside]
        kind = {"domain": "py", "objtype": entry.kind, "desctype": entry.kind}
        return addnodes.desc("", signature, content, classes=["py", entry.kind], **kind)


def named(section: nodes.section | None, name: str) -> bool:
    """Whether a section has this anchor."""
    return section is not None and name in section["ids"]


def lead(app: Sphinx, doctree: nodes.document) -> None:
    """Make a link of the name of a function, the first time that a section has it."""
    page = app.env.docname
    if page == PAGE:
        return
    seen = set()
    for word in list(doctree.findall(nodes.literal)):
        full = names().get(word.astext().removesuffix("()"))
        above, row, where = word.parent, None, None
        while above is not None and where is None:
            # A rung of the ladder has the name of the function that it adds, and is not that.
            rung = (
                isinstance(above, nodes.table) and above.next_node(nodes.entry).astext() == "rung"
            )
            if rung or isinstance(above, (nodes.reference, nodes.title, addnodes.pending_xref)):
                full = None
            row = above if isinstance(above, nodes.row) else row
            where = above if isinstance(above, nodes.section) else None
            above = above.parent
        # On the pages about language these are names of other things.
        if LANGUAGE.match(page) or named(where, "language"):
            full = None if full and full.startswith(("exact.", "ppo.")) else full
        place = (full, id(row or where))
        if full and place not in seen:
            seen.add(place)
            word.replace_self(link(full, word.astext(), page))


def say_equation(_app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Write "eq. 5.6" and no brackets: a docstring sets its own round them."""
    for to in doctree.findall(nodes.reference) if page == PAGE else ():
        if "#equation-" in to.get("refuri", ""):
            to[:] = [nodes.Text("eq. " + to.astext().strip("()"))]


def spans(_app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Make spans of the parameters of a long signature, which Sphinx writes as half a list."""
    if page == PAGE:
        context["body"] = HALF.sub(
            lambda found: '<span class="params">' + DD.sub(r"<\1span>", found[1]) + "</span>",
            context["body"],
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """The directive, and the links to what it writes."""
    app.add_directive("reference", Reference)
    app.connect("doctree-read", lead)
    app.connect("doctree-resolved", say_equation)
    app.connect("html-page-context", spans)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
