"""Write the page on the source from the ledger, the notes and what the chapters printed.

Usage: ``python tools/ledger.py``; it reads ``book/ledger.toml``, ``book/_data/source`` and the
stored outputs of the chapters, and writes ``book/ledger.md``.
"""

import re
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import nbformat

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGE = BOOK / "ledger.md"
VERDICT = re.compile(
    r"✓ (?P<label>eq-[a-z0-9-]+) · (?P<kind>exact|estimate)"
    r"(?: to (?P<tolerance>1e-\d\d)|, (?P<samples>\d+) samples, within (?P<errors>[\d.]+)"
    r" standard errors) · rejects: (?P<rejects>.+)"
)
PRINTED = re.compile(
    r"✓ (?P<label>eq-[a-z0-9-]+) · printed · rejects (?P<seen>\d+) of (?P<made>\d+)"
    r" one-token changes(?:; \d+ change nothing: .+?)?(?: · source: (?P<source>.+))?"
)


@dataclass(frozen=True)
class Statement:
    """A statement of the source document, as a row of ``ledger.toml`` has it."""

    id: str
    label: str
    chapter: int
    says: str
    function: str
    loose: str = ""
    source: str = ""
    aside: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Verdict:
    """What one check printed."""

    label: str
    kind: str
    held: str
    rejects: tuple[str, ...]


def statements() -> list[Statement]:
    """The rows of the ledger, in the order of the source."""
    rows = tomllib.loads((BOOK / "ledger.toml").read_text(encoding="utf-8"))["statement"]
    known = {field.name for field in fields(Statement)}
    return [Statement(**{k: v for k, v in row.items() if k in known}) for row in rows]


def chapters() -> dict[int, Path]:
    """The notebooks, by the number in their names."""
    return {int(path.name[:2]): path for path in sorted(BOOK.glob("[0-9][0-9]-*.ipynb"))}


@cache
def lines_of(path: Path) -> list[str]:
    """What a chapter's cells have printed, verdicts included."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [line for cell in cells for out in cell.outputs for line in text_of(out).splitlines()]


def text_of(output: nbformat.NotebookNode) -> str:
    """An output as a terminal shows it."""
    if output.output_type == "stream":
        return output.text
    return output.get("data", {}).get("text/plain", "")


def printed(path: Path) -> dict[str, tuple[int, int]]:
    """The equations that a chapter has run from its print: changes told apart, and made."""
    found = [match for line in lines_of(path) if (match := PRINTED.fullmatch(line))]
    return {match["label"]: (int(match["seen"]), int(match["made"])) for match in found}


def source_runs(path: Path) -> dict[str, str]:
    """What running the source's own formulas has shown, by the book's label."""
    found = [match for line in lines_of(path) if (match := PRINTED.fullmatch(line))]
    return {match["label"]: match["source"] for match in found if match["source"]}


@cache
def verdicts(path: Path) -> list[Verdict]:
    """The verdicts that a chapter's cells have printed."""
    found = [match for line in lines_of(path) if (match := VERDICT.fullmatch(line))]
    return [
        Verdict(
            match["label"],
            match["kind"],
            match["tolerance"] or f"{match['errors']} s.e.",
            tuple(match["rejects"].split(", ")),
        )
        for match in found
    ]


def unchecked() -> list[Statement]:
    """The statements whose chapter printed no verdict for them."""
    checked = {
        number: {v.label for v in verdicts(path)} | printed(path).keys()
        for number, path in chapters().items()
    }
    return [s for s in statements() if s.label not in checked.get(s.chapter, set())]


def summary() -> str:
    """How many of the statements are checked, in words."""
    total = len(statements())
    return f"{total - len(unchecked())} of {total} statements are checked"


def title(path: Path) -> str:
    """The title of a chapter."""
    cells = nbformat.read(path, as_version=4).cells
    return re.search(r"^# (.+)$", cells[0].source, re.MULTILINE)[1]


def render() -> str:
    """The page, as MyST Markdown."""
    rows = statements()
    checked = {number: verdicts(path) for number, path in chapters().items()}
    from_print = {number: printed(path) for number, path in chapters().items()}
    every = [verdict for found in checked.values() for verdict in found]
    runs = [run for found in from_print.values() for run in found.values()]
    told_apart, made = (sum(numbers) for numbers in zip(*runs, strict=True))
    wrong = sum(len(verdict.rejects) for verdict in every)
    of_source = [said for path in chapters().values() for said in source_runs(path).values()]
    starts = ("the same", "off by", "no number")
    same, off, none = (sum(said.startswith(start) for said in of_source) for start in starts)
    text = [
        "# The source, and every equation checked",
        "",
        "The book follows a short document in Chinese, *LLM-RL-PPO*, which goes from the action"
        " space to the clipped loss in 71 statements and stops before the language model.",
        "Here they are in its order, and where it has a formula in its own notation, each with the"
        " book's equation and with what its check found.",
        "Under each chapter's table stands where the two differ, and by how much.",
        "",
        "The page is made from the ledger of the statements and from what the executed cells of the"
        " chapters printed.",
        "An *exact* check compares both sides of an equation in 64-bit floating point; the number"
        " is the largest difference allowed, relative to the largest number on the right.",
        "An *estimate* compares the mean of samples with its exact value, and the number is the"
        " distance allowed, in standard errors.",
        "Under *wrong* stands how many wrong formulas the checks were given and told from the right"
        " one.",
        "Under *print* stands, for an equation that was read from the page itself and run, how many"
        " of its changes by one token gave other numbers; *beside* means that the check types the"
        " formula a second time.",
        "The source's own formulas are run as well, with its signs read as the ledger says and with"
        " the numbers of the book's equation.",
        "*Off by* gives the largest difference between the two sides; *no number* means that the"
        " formula asks for a step that a trajectory does not have; a formula that does not hold is"
        " run once more with the change that mends it.",
        "A formula that only goes on from the line above is held against the book's left side, and"
        " one that is no equation against the book's right side.",
        "",
        f"**{summary()}**, by {len(every)} checks that reject {wrong} wrong formulas"
        " (equations of our own included).",
        f"**{len(runs)} equations run from their print**; of {made:,} changes by one token"
        f" {told_apart:,} give other numbers, and each of the rest is named with its reason.",
        f"**{len(of_source)} of the source's {sum(bool(s.source) for s in rows)} formulas run**:"
        f" {same} hold as they stand, {off} are off by a number, and {none} have none.",
    ]
    for number, path in chapters().items():
        here = [s for s in rows if s.chapter == number]
        if not here:
            continue
        text += [
            "",
            f"## [{title(path)}]({path.name})",
            "",
            "| equation | what it says | in the source | the source run | check | wrong | print |"
            " in the library |",
            "|---|---|---|---|---|---|---|---|",
        ]
        ran = source_runs(path)
        for s in here:
            own = [v for v in checked[number] if v.label == s.label]
            kinds = ", ".join(sorted({f"{v.kind} {v.held}" for v in own}, reverse=True))
            run = from_print[number].get(s.label)
            told = f"{run[0]} of {run[1]}" if run else "beside"
            kinds = kinds.replace("-", "\N{NON-BREAKING HYPHEN}")  # no line breaks at it
            rejected = len({name for v in own for name in v.rejects})
            loose = f" *The source {s.loose}.*" if s.loose else ""
            says = f"{s.says[0].upper()}{s.says[1:]}.{loose}"
            formula = f"${s.source}$" if s.source else "in words"
            name = s.function.rpartition(".")[2]
            text.append(
                f"| {s.id} {{eq}}`{s.label}` | {says} | {formula} | {ran.get(s.label, '')} |"
                f" {kinds} | {rejected} | {told} | `{name}` |"
            )
        notes = BOOK / "_data" / "source" / f"{number:02}.md"
        if notes.is_file():
            text += ["", "**Where the source and the book differ**", ""]
            text += notes.read_text(encoding="utf-8").splitlines()
    return "\n".join([*text, *beyond(rows, checked, from_print)]) + "\n"


def beyond(
    rows: list[Statement],
    checked: dict[int, list[Verdict]],
    from_print: dict[int, dict[str, tuple[int, int]]],
) -> list[str]:
    """The part on equations that the source does not have, a row for each chapter.

    Args:
        rows: the statements of the source.
        checked: the verdicts of each chapter.
        from_print: what the printed equations of each chapter gave, by label.
    """
    of_source = {s.label for s in rows}
    text = [
        "",
        "## Equations of the book's own",
        "",
        "The source does not have these; they are checked in the same two ways.",
        "The wrong formulas are those that were named and the changes by one token.",
        "",
        "| chapter | equations | run from print | wrong formulas |",
        "|---|---|---|---|",
    ]
    for number, path in chapters().items():
        verdicts_here = [v for v in checked[number] if v.label not in of_source]
        printed_here = from_print[number].keys() - of_source
        labels = printed_here | {v.label for v in verdicts_here}
        if labels:
            changed = sum(from_print[number][label][0] for label in printed_here)
            wrong = sum(len(v.rejects) for v in verdicts_here) + changed
            name = f"{number}. [{title(path)}]({path.name})"
            text.append(f"| {name} | {len(labels)} | {len(printed_here)} | {wrong} |")
    return text


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"{PAGE.name}: written, {summary()}")
