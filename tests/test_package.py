"""What is shipped and what contributors are told agrees with the repository."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import yaml

from htr_lightning import __version__

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_configs_recipes_types_and_data_files(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(ZipFile(wheel).namelist())
    expected = {
        path for path in (ROOT / "htr_lightning").rglob("*") if path.suffix in (".py", ".txt", ".tsv", ".typed")
    }
    names = {path.relative_to(ROOT).as_posix() for path in expected}
    names |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "hydra_plugins").rglob("*.py")}
    assert "hydra_plugins/__init__.py" not in names  # other packages have plugins there, too
    for folder in ("conf", "experiments"):
        names |= {f"htr_lightning/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob("*.yaml")}
    assert "htr_lightning/py.typed" in names
    assert len(names) > 200
    assert names <= shipped


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == citation["version"] == __version__
    assert project["license"] == citation["license"]
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_path_in_contributing_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = [path for path in re.findall(r"[`(]([\w./]+/[\w./]*)[`)]", text) if "export" not in path]  # to come
    assert len(paths) > 20
    for path in paths:
        shown = Path(path).parent if "NAME" in path else Path(path)
        assert (ROOT / shown).exists() or (ROOT / "htr_lightning" / shown).exists(), path
