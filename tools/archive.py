"""A Sphinx extension: the archives that a reader downloads are made when the book is built.

``ppo-line-by-line.zip`` holds every file of the project, and ``ppo_lib.zip`` the library alone;
pip installs either of them.  ``figures.zip`` holds the drawn figures of the chapters.

The files of the project are those that git tracks; where there is no git, as in an unpacked
archive, all but hidden folders and what is made.
"""

import subprocess
from base64 import b64decode
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import ledger
import nbformat
from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[1]
ARCHIVES = ROOT / "_build" / "archives"
BOOK, LIBRARY = "ppo-line-by-line", "ppo_lib"
#: What pip needs to install the library, besides its folder.
AROUND = ("pyproject.toml", "README.md", "LICENSE")
#: How a file of a figure ends.
SUFFIX = {"image/png": ".png", "image/svg+xml": ".svg"}
MADE = {"_build", "__pycache__", "checkpoints"}


def project_files() -> list[str]:
    """The files of the project, as paths from its folder."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    top = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--show-toplevel"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0 and Path(top.stdout.strip()).resolve() == ROOT:
        names = [name for name in listed.stdout.split("\0") if name]
        return sorted(name for name in names if (ROOT / name).is_file())
    paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in paths if is_source(path))


def is_source(path: Path) -> bool:
    """Whether a file, by its path from the project's folder, was written and not made."""
    hidden = [part for part in path.parts[:-1] if part.startswith(".") and part != ".ci"]
    made = [part for part in path.parts if part in MADE or part.endswith(".egg-info")]
    return not hidden and not made


def figures() -> dict[str, bytes]:
    """The drawn figures by chapter and name, the films, and a list of what they show."""
    files, told = {}, []
    for path in ledger.chapters().values():
        for cell in nbformat.read(path, as_version=4).cells:
            render = cell.metadata.get("mystnb", {})
            name = render.get("figure", {}).get("name")
            pictures = [o.data for o in cell.get("outputs", []) if name and "data" in o]
            for kind, data in (item for picture in pictures for item in picture.items()):
                if kind in SUFFIX:
                    file = f"{path.stem}/{name}{SUFFIX[kind]}"
                    files[file] = b64decode(data) if kind == "image/png" else data.encode()
                    alt, caption = render["image"]["alt"], render["figure"]["caption"]
                    told.append(f"{file}\n  {caption}\n  {alt}\n")
    for film in sorted((ledger.BOOK / "_static" / "films").glob("*.webp")):
        files[f"films/{film.name}"] = film.read_bytes()
    return files | {"figures.txt": "\n".join(told).encode()}


def write(name: str, files: dict[str, bytes]) -> None:
    """Pack files below a folder of the archive's own name; the same files give the same bytes."""
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    with ZipFile(ARCHIVES / f"{name}.zip", "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for file, data in files.items():
            info = ZipInfo(f"{name}/{file}")
            info.external_attr = (0o755 if data.startswith(b"#!") else 0o644) << 16
            archive.writestr(info, data, ZIP_DEFLATED)


def make(_app: Sphinx, _config: Config) -> None:
    """Write the archives before any page is read."""
    files = {name: (ROOT / name).read_bytes() for name in project_files()}
    library = {f: x for f, x in files.items() if f in AROUND or f.startswith(f"{LIBRARY}/")}
    write(BOOK, files)
    write(LIBRARY, library)
    write("figures", figures())


def setup(app: Sphinx) -> dict[str, bool]:
    """Pack first, so that the pages find what they offer."""
    app.connect("config-inited", make)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
