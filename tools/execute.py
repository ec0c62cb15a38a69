"""Run chapters from their first cell and store what they give.

Usage: ``python tools/execute.py [NOTEBOOK …]``; without a name, every notebook of ``book/``.

Each notebook gets a fresh kernel in its own folder.  No times are recorded and the metadata of
the notebook are cut to kernel and language, so that a second run changes no byte.  A chapter
with a failing cell is left as it was.
"""

import argparse
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

BOOK = Path(__file__).resolve().parents[1] / "book"

#: What a kernel must find in its environment to print the same on every machine; the tests
#: set it too.
KERNEL_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # sums are added in one order
    "SDL_VIDEODRIVER": "dummy",  # a picture of an environment needs no screen
    "TQDM_DISABLE": "1",  # a progress bar would be compared character by character
}
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def execute(path: Path) -> bool:
    """Run one notebook and store its outputs.

    Args:
        path: the notebook, which is written only after its last cell has run.

    Returns:
        Whether a byte of the file changed.

    Raises:
        CellExecutionError: if a cell fails; the file is left as it was.
    """
    before = path.read_bytes()
    notebook = nbformat.reads(before.decode("utf-8"), as_version=4)
    NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    after = (nbformat.writes(notebook) + "\n").encode("utf-8")
    if after != before:
        path.write_bytes(after)
    return after != before


def main() -> int:
    """Run the notebooks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    paths = parser.parse_args().notebooks or sorted(BOOK.glob("*.ipynb"))
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        parser.error(f"no such notebook: {', '.join(missing)}")
    os.environ.update(KERNEL_ENVIRONMENT)
    failed = []
    for path in paths:
        try:
            print(f"{path.name}: {'changed' if execute(path) else 'unchanged'}", flush=True)
        except CellExecutionError as error:
            failed.append(path.name)
            print(f"{path.name}: FAILED, left as it was\n{error}", file=sys.stderr, flush=True)
    if failed:
        print(f"{len(failed)} of {len(paths)} failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
