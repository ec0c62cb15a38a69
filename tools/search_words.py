"""A Sphinx extension: what readers type in the search that no title says.

A word of this table is an entry of the index at the section that explains it, and the search lists
such entries first.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

#: For each page and section, or the page as a whole, the words that lead there.
WORDS = {
    ("book/index", "get-it-running"): ("install", "installation", "download"),
    ("book/01-basic-concepts", "the-goal"): ("optimal policy", "ridge"),
    ("book/02-policy-gradient", "the-policy-gradient"): ("REINFORCE", "score function"),
    ("book/03-reward-to-go-and-baseline", "the-baseline"): ("baseline", "variance reduction"),
    ("book/04-values-and-advantage", "bellman-s-equation"): ("Bellman equation",),
    ("book/05-gae", "generalised-advantage-estimation"): ("GAE", "lambda"),
    ("book/05-gae", "where-an-episode-ends"): ("time limit", "truncation"),
    ("book/06-importance-sampling", "importance-sampling"): ("importance sampling", "ratio"),
    ("book/07-clipping-and-the-trainer", "second-restraint-clipping"): (
        "clip",
        "clipping",
        "clipped loss",
    ),
    ("book/07-clipping-and-the-trainer", "the-whole-trainer"): ("learning rate", "hyperparameters"),
    ("book/07-clipping-and-the-trainer", "first-restraint-a-kl-penalty"): ("KL",),
    ("book/08-every-option", ""): ("entropy", "entropy bonus"),
    ("book/08-every-option", "what-an-undecided-policy-is-paid"): ("exploration",),
    ("book/one-page", ""): ("PPO",),
}


def add_words(app: Sphinx, doctree: nodes.document) -> None:
    """Put the entries where their sections begin; a section that is gone is warned of."""
    page = app.env.docname
    ids = {id_: section for section in doctree.findall(nodes.section) for id_ in section["ids"]}
    for (where, section), words in WORDS.items():
        if where != page:
            continue
        anchor = section or next(iter(ids))
        if anchor not in ids:
            logging.getLogger(__name__).warning("%s has no section %s", page, section)
            continue
        entries = [("single", word, anchor, "main", None) for word in words]
        ids[anchor].insert(1, addnodes.index(entries=entries, inline=False))


def setup(app: Sphinx) -> dict[str, bool]:
    """Run as soon as a page is read, before its entries are gathered."""
    app.connect("doctree-read", add_words, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
