"""A Sphinx extension: what the front page says of the checks is counted when the book is built.

`{{ statements }}`, `{{ equations }}`, `{{ printed }}` and `{{ wrong }}` stand in a page for numbers
that come from the ledger and from what the executed chapters have printed.
"""

import ledger
from sphinx.application import Sphinx
from sphinx.config import Config


def counts() -> dict[str, str]:
    """The numbers, as they are printed.

    Returns:
        ``statements`` of the source, checked ``equations`` of the book, those of them that are run
        as they are ``printed``, and the ``wrong`` formulas that the checks told from the right
        ones: those that were named, and the changes by one token.
    """
    chapters = ledger.chapters().values()
    verdicts = [verdict for path in chapters for verdict in ledger.verdicts(path)]
    runs = {label: run for path in chapters for label, run in ledger.printed(path).items()}
    named = sum(len(verdict.rejects) for verdict in verdicts)
    numbers = {
        "statements": len(ledger.statements()),
        "equations": len({verdict.label for verdict in verdicts} | runs.keys()),
        "printed": len(runs),
        "wrong": named + sum(seen for seen, _ in runs.values()),
    }
    return {name: f"{number:,}" for name, number in numbers.items()}


def count(_app: Sphinx, config: Config) -> None:
    """Give the numbers to the pages, as substitutions."""
    config.myst_substitutions = {**config.myst_substitutions, **counts()}


def setup(app: Sphinx) -> dict[str, bool]:
    """Count before any page is read."""
    app.connect("config-inited", count)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
