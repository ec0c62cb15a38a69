"""A Sphinx extension: what autodoc makes of the library's docstrings, joined to the pages.

In a docstring every equation, paper and function that it names becomes a link; in a page, every
function of the library that it names, the first time in each section.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain

PAGE = "book/reference"
#: The pages about language.
LANGUAGE = re.compile(r"book/1[01]-")
#: The rooms that the page lists, in its order.
ROOMS = (
    "returns", "objectives", "distributions", "policies", "rollout", "ppo", "parallel",
    "config", "normalizers", "envs", "evaluate", "history", "checkpoint", "audit", "exact.mdp",
)  # fmt: skip
#: In a docstring: code, a name, an equation, a paper, and what would mean something to docutils.
SPAN = re.compile(
    r"(?P<code>``.+?``)|`(?P<name>[\w.]+)`|\b(?P<equation>eq-[a-z][a-z0-9-]*)"
    r"|\barXiv:(?P<paper>\d+\.\d+)|(?P<mark>[|*]|_\b|(?<=[θts])'(?!\w))",
    re.DOTALL,
)
#: Sphinx writes the parameters of a long signature as half a list.
HALF, DD = re.compile(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", re.DOTALL), re.compile(r"<(/?)dd>")


class Domain(PythonDomain):
    """The names that a search knows are without ``ppo_lib``, which one for PPO would find."""

    def get_objects(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        """What there is to be found."""
        for name, shown, *rest in super().get_objects():
            yield name.removeprefix("ppo_lib."), shown.removeprefix("ppo_lib."), *rest


@cache
def names() -> dict[str, str]:
    """What a page may call an entry, and its full name; what two rooms have is nobody's."""
    found: dict[str, list[str]] = {}
    for room in ROOMS:
        module = importlib.import_module(f"ppo_lib.{room}")
        for name, thing in vars(module).items():
            if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__:
                of_class = vars(thing).items() if inspect.isclass(thing) else ()
                methods = [f"{name}.{m}" for m, f in of_class if m[0] != "_" and callable(f)]
                for each in (name, *methods):
                    found.setdefault(each, []).append(f"{module.__name__}.{each}")
    return {name: full[0] for name, full in found.items() if len(full) == 1}


def write(
    _app: Sphinx, _kind: str, full: str, _thing: Any, _options: Any, lines: list[str]
) -> None:
    """Turn a docstring into what docutils reads."""
    owner = full.split(".")  # of a method, its class is among them

    def role(match: re.Match[str]) -> str:
        kind, word = match.lastgroup, match[match.lastgroup or 0]
        if kind == "name":
            inside = (f"{part}.{word}" for part in owner)
            target = next((names()[x] for x in (word, *inside) if x in names()), None)
            return f":py:obj:`{word} <{target}>`" if target else f"``{word}``"
        if kind == "equation":
            return f":eq:`{word}`"
        if kind == "paper":
            return f"`arXiv:{word} <https://arxiv.org/abs/{word}>`__"
        return word if kind == "code" else f"\\{word}"

    lines[:] = SPAN.sub(role, "\n".join(lines)).split("\n")


def named(section: nodes.section | None, name: str) -> bool:
    """Whether a section has this anchor."""
    return section is not None and name in section["ids"]


def lead(app: Sphinx, doctree: nodes.document) -> None:
    """Make a link of the name of a function, the first time that a section has it."""
    page = app.env.docname
    seen = set()
    for word in list(doctree.findall(nodes.literal)) if page != PAGE else ():
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
            full = None if full and full.startswith(("ppo_lib.exact.", "ppo_lib.ppo.")) else full
        place = (full, id(row or where))
        if full and place not in seen:
            seen.add(place)
            xref = addnodes.pending_xref("", nodes.literal("", word.astext()), refdoc=page)
            xref.update_all_atts({"refdomain": "py", "reftype": "obj", "reftarget": full})
            word.replace_self(xref)


def say_equation(_app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Write "eq. 5.6" and no brackets: a docstring sets its own round them."""
    for to in doctree.findall(nodes.reference) if page == PAGE else ():
        if "#equation-" in to.get("refuri", ""):
            to[:] = [nodes.Text("eq. " + to.astext().strip("()"))]


def spans(_app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Make spans of such halves of lists."""
    if page == PAGE:
        context["body"] = HALF.sub(
            lambda found: '<span class="params">' + DD.sub(r"<\1span>", found[1]) + "</span>",
            context["body"],
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before napoleon, which makes lists of arguments."""
    app.add_domain(Domain, override=True)
    app.connect("autodoc-process-docstring", write, priority=400)
    app.connect("doctree-read", lead)
    app.connect("doctree-resolved", say_equation)
    app.connect("html-page-context", spans)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
