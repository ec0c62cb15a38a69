"""The package alone: what it imports is declared, extras say their names, a wheel holds all."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from setuptools import build_meta

import ppo_lib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "ppo_lib").rglob("*.py")}
#: What is imported, and the distribution that holds it.
HOLDS = {"PIL": "pillow", "IPython": "ipython", "cycler": "matplotlib", "pygame": "gymnasium"}
#: What only an extra installs, as it is imported.
OPTIONAL = (
    "PIL",
    "matplotlib",
    "cycler",
    "IPython",
    "pygame",
    "tensorboard",
    "mujoco",
    "ipywidgets",
)

ALONE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import ppo_lib
from ppo_lib import PPO, PPOConfig, evaluate, load_policy
from ppo_lib.shell import command, film, tensorboard

with PPO("CartPole-v1", PPOConfig(total_steps=512)) as trainer:
    history = trainer.learn()
    trainer.save("agent.pt")
policy = load_policy("agent.pt")
evaluate(policy, "CartPole-v1", num_episodes=2, seed=0)
policy.act([0.0, 0.0, 0.0, 0.0])
PPO.load("agent.pt", total_steps=1024).learn()
for words in (["CartPole-v1", "--total-steps", "2048", "--checkpoint", "b.pt"],
              ["evaluate", "b.pt", "--episodes", "2"],
              ["evaluate", "b.pt", "--episodes", "2", "--film", "a.gif"],
              ["CartPole-v1", "--checkpoint", "c.pt", "--tensorboard", "events"],
              ["HalfCheetah-v5", "--checkpoint", "c.pt"]):
    sys.argv = ["ppo_lib", *words]
    print("status", command.main(), flush=True)
for ask in (history.plot, lambda: tensorboard.TensorBoard("events"),
            lambda: film.save_film(policy, "CartPole-v1", "a.gif", seed=0),
            lambda: __import__("ppo_lib.book.figures")):
    try:
        ask()
    except ImportError as error:
        print(error)
print(sorted(name for name in sys.modules if name in {missing}))
# In a notebook, too, where there may be no widgets.
sys.modules["ipykernel"] = sys
with ppo_lib.history.progress_bar(10, 0, wanted=True) as bar:
    bar.update(10)
"""


def distributions(requirements):
    return {re.match(r"[\w-]+", each).group().lower() for each in requirements}


def executed(tree):
    """The statements that run when a module is imported, inside its ``try`` blocks too."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.Try):
            yield from node.body


def imported(tree):
    """The distributions of what a module imports when it is imported itself."""
    names = set()
    for node in executed(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return {HOLDS.get(name, name) for name in names - sys.stdlib_module_names - {"ppo_lib"}}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_what_a_module_imports_is_declared(name):
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    declared = distributions(PROJECT["dependencies"])
    if name in ("ppo_lib/book/figures.py", "ppo_lib/book/formulas.py"):
        declared |= distributions(PROJECT["optional-dependencies"]["book"])
    assert imported(tree) <= declared
    # What is imported later, of an extra, is of that extra.
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "optional":
            module, extra = (argument.value for argument in node.args)
            module = module.removeprefix("torch.utils.").partition(".")[0]
            wanted = PROJECT["optional-dependencies"][extra]
            assert HOLDS.get(module, module) in distributions(wanted)


def test_extras_are_those_that_are_spoken_of():
    extras = PROJECT["optional-dependencies"]
    assert sorted(extras) == ["book", "film", "mujoco", "tensorboard"]
    assert any(each.startswith("gymnasium[classic-control]") for each in extras["film"])
    assert any(each.startswith("gymnasium[mujoco]") for each in extras["mujoco"])
    said = {
        extra
        for path in (*SOURCES.values(), ROOT / "README.md")
        for extra in re.findall(r"ppo_lib\[(\w+)\]", path.read_text(encoding="utf-8"))
    }
    assert said == set(extras)


def test_without_the_extras_all_but_they_works_and_each_is_named(tmp_path):
    code = ALONE.format(missing=set(OPTIONAL))
    python = [sys.executable, "-W", "error", "-c", code]
    env = {name: x for name, x in os.environ.items() if name != "TQDM_DISABLE"}
    done = subprocess.run(
        python, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "10/10" in done.stderr
    statuses = re.findall(r"^status (\d)$", done.stdout, re.MULTILINE)
    assert statuses == ["0", "0", "2", "2", "2"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert errors[0] == "error: No module named 'PIL': run pip install 'ppo_lib[film]'"
    assert errors[1].endswith("run pip install 'ppo_lib[tensorboard]'")
    assert "pip install" in errors[2]  # gymnasium's own words
    assert "mujoco" in errors[2]
    said = [line for line in done.stdout.splitlines() if line.startswith("No module")]
    extras = [re.search(r"run pip install 'ppo_lib\[(\w+)\]'$", line).group(1) for line in said]
    assert extras == ["book", "tensorboard", "film", "book"]
    assert done.stdout.endswith("\n[]\n")


def test_a_wheel_holds_every_package_and_what_types_need(tmp_path, monkeypatch):
    # Built of a copy, so that nothing is left beside the sources.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for path in (*SOURCES.values(), ROOT / "ppo_lib" / "py.typed"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    wheel = tmp_path / build_meta.build_wheel(str(tmp_path))
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in held if name.startswith("ppo_lib/")} == {*SOURCES, "ppo_lib/py.typed"}
    assert wheel.name == f"ppo_lib-{ppo_lib.__version__}-py3-none-any.whl"
    assert any(name.endswith("licenses/LICENSE") for name in held)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_module_looks_for_files_outside_the_package(name):
    # In a wheel there is no folder beside the package.
    assert "__file__" not in SOURCES[name].read_text(encoding="utf-8")


def test_every_pin_is_locked_with_hashes():
    locked = dict(
        re.findall(r"^(\S+)==(\S+) \\\n    --hash=", read("requirements.lock"), re.MULTILINE)
    )
    names = re.findall(
        r"^([\w-]+)(?:\[[\w,-]+\])?==([\w.]+)", read("requirements.txt"), re.MULTILINE
    )
    assert len(names) > 20
    assert {name: locked.get(name.lower()) for name, _ in names} == dict(names)
    assert "://" not in read("requirements.lock")


def test_the_workflow_runs_what_a_change_is_held_against_and_pins_what_it_uses():
    flow = yaml.safe_load(read(".github/workflows/ci.yml"))
    check, publish = flow["jobs"]["check"], flow["jobs"]["publish"]
    assert {"run": ".ci/run"} in check["steps"]
    assert flow["permissions"] == {"contents": "read"}
    assert (publish["needs"], publish["if"]) == ("check", "github.event_name == 'push'")
    used = [step["uses"] for job in (check, publish) for step in job["steps"] if "uses" in step]
    assert len(used) == 4
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")
