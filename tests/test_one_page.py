"""The page for looking up: formulas of the chapters, numbers of PPOConfig, code that runs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import front_page
import ledger
import nbformat

import ppo_lib
from ppo_lib import PPOConfig, objectives, returns
from ppo_lib.exact import mdp

ROOT = Path(__file__).resolve().parents[1]
TRAINER = ROOT / "examples" / "ppo.py"
PAGE = (ROOT / "book" / "one-page.md").read_text(encoding="utf-8")
FORMULAS = re.findall(r"^\$\$\n(.*?)\n\$\$$", PAGE, re.DOTALL | re.MULTILINE)


def chapters() -> str:
    """The Markdown of all chapters."""
    cells = [cell for path in ledger.chapters().values() for cell in nbformat.read(path, 4).cells]
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_formulas_are_those_of_the_chapters_that_it_names() -> None:
    text = chapters()
    defined = dict(re.findall(r"^\$\$\n([^$]*?)\n\$\$ \((eq-[\w-]+)\)$", text, re.MULTILINE))
    assert len(FORMULAS) >= 6
    for formula in FORMULAS:
        assert formula in defined, formula
        assert f"{{eq}}`{defined[formula]}`" in PAGE


def test_functions_exist() -> None:
    section = PAGE.split("## The formulas")[1].split("## A trainer")[0]
    rooms = (ppo_lib, returns, objectives, mdp)
    for name in re.findall(r"(?<!\})`(\w+)`", section):
        assert any(hasattr(room, name) for room in rooms), name


def test_defaults_are_the_configurations() -> None:
    table = PAGE.split("## The defaults")[1].split("## From symptom")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", table, re.MULTILINE)
    shown = {}
    for names, values in rows:
        fields = re.findall(r"`(\w+)`", names)
        numbers = [float(value) for value in values.split(", ")]
        together = {fields[0]: tuple(numbers)} if len(fields) == 1 < len(numbers) else {}
        shown |= together or dict(zip(fields, numbers, strict=True))
    assert len(shown) >= 10
    for name, value in shown.items():
        assert getattr(PPOConfig(), name) == value, name


def test_trainer_has_the_defaults_too() -> None:
    config, scope = PPOConfig(), {}
    for line in ast.parse(TRAINER.read_text(encoding="utf-8")).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Tuple):
            names = [name.id for name in line.targets[0].elts if isinstance(name, ast.Name)]
            if all(name.isupper() for name in names):
                scope |= dict(zip(names, ast.literal_eval(line.value), strict=True))
    assert (scope["N"], scope["T"]) == (config.num_envs, config.num_steps)
    assert (scope["EPOCHS"], scope["MINIBATCH"]) == (config.num_epochs, config.minibatch_size)
    assert (scope["RATE"], scope["MAX_NORM"]) == (config.learning_rate, config.max_grad_norm)
    assert (scope["GAMMA"], scope["LAMBDA"]) == (config.gamma, config.gae_lambda)
    assert scope["EPSILON"] == config.clip_range


def test_trainer_needs_torch_gymnasium_and_numpy_alone() -> None:
    tree = ast.parse(TRAINER.read_text(encoding="utf-8"))
    roots = {
        alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    }
    roots |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in roots} - set(sys.stdlib_module_names)
    assert roots == {"torch", "gymnasium", "numpy"}


def test_trainer_learns(tmp_path: Path) -> None:
    # 20 untrained; after 6,144 steps 319, with torch's plain kernels too.
    run = subprocess.run(
        [sys.executable, "-I", TRAINER, "6144"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = re.fullmatch(r"mean return of 20 episodes: ([\d.]+)\n", run.stdout)
    assert said
    assert float(said[1]) > 100


def test_front_page_counts_what_the_chapters_print() -> None:
    counts = {name: int(text.replace(",", "")) for name, text in front_page.counts().items()}
    text = ledger.PAGE.read_text(encoding="utf-8")
    assert f"{counts['statements']} statements" in text
    assert f"**{counts['printed']} equations run from their print**" in text
    labels = set(re.findall(r"\$\$ \((eq-[\w-]+)\)", chapters()))
    assert counts["equations"] == len(labels)
    assert counts["wrong"] > counts["equations"]
