"""What is published beside the code says the same as the code: versions, dependencies, Pythons, public names."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import damorl
import damorl.testing
from damorl.algos import ALGORITHMS
from damorl.cli import DATA_VERBS, VERBS
from damorl.experiment.config import PRESETS, LoopConfig, dotted

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ON_CONDA = {"flatbuffers": "python-flatbuffers", "matplotlib": "matplotlib-base", "mujoco": "mujoco-python"}
"""Other names of the same packages on conda-forge."""
REPLACEMENTS = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def parsed(path: str) -> Any:
    return yaml.safe_load(text(path))


def split(requirement: str) -> tuple[str, frozenset[str]]:
    """Name and bounds, `jax >=0.10,<0.13`, in small letters."""
    name, bounds = re.fullmatch(r"([\w-]+) ?(.*)", requirement.lower()).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return name, frozenset(bounds.split(","))


def test_every_file_has_the_one_version() -> None:
    version = damorl.__version__
    assert parsed("CITATION.cff")["version"] == version
    assert parsed("release/conda/recipe.yaml")["context"]["version"] == version
    assert re.findall(r"^ARG VERSION=(.*)$", text("release/Dockerfile"), re.MULTILINE) == [version]
    first, second = re.findall(r"^## (.*)$", text("CHANGELOG.md"), re.MULTILINE)[:2]
    assert first == "Unreleased"
    assert second.split(" - ")[0] == version
    series = ".".join(version.split(".")[:2])
    assert f"| {series} | yes |" in text("SECURITY.md")


def test_the_changelog_keeps_to_its_form() -> None:
    lines = text("CHANGELOG.md").splitlines()
    kinds = {line.removeprefix("### ") for line in lines if line.startswith("### ")}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    versions = [line for line in lines if line.startswith("## ")]
    assert all(re.fullmatch(r"## (Unreleased|\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d)", line) for line in versions)


def test_the_conda_recipe_needs_what_the_package_needs() -> None:
    recipe = parsed("release/conda/recipe.yaml")
    needed = dict(map(split, PROJECT["project"]["dependencies"]))
    expected = {ON_CONDA.get(name, name): bounds for name, bounds in needed.items()}
    expected["python"] = frozenset({PROJECT["project"]["requires-python"]})
    assert dict(map(split, recipe["requirements"]["run"])) == expected
    host = dict(map(split, recipe["requirements"]["host"]))
    assert dict(map(split, PROJECT["build-system"]["requires"])).items() <= host.items()
    (entry,) = recipe["build"]["python"]["entry_points"]
    assert entry == f"damorl = {PROJECT['project']['scripts']['damorl']}"


def test_the_container_installs_what_a_release_makes() -> None:
    dockerfile, build = text("release/Dockerfile"), text("release/build.py")
    assert "--require-hashes" in dockerfile
    for name in re.findall(r"requirements[\w-]*\.txt", dockerfile):
        assert f'"{name}"' in build


def test_the_workflow_does_what_ci_does_on_every_supported_python() -> None:
    (job,) = parsed(".github/workflows/check.yml")["jobs"].values()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert "bash .ci/run" in runs
    own = {target for line in runs for target in re.findall(r"^make (\S+)", line, re.MULTILINE)}
    assert own <= set(re.findall(r"^make (\S+)$", text(".ci/run"), re.MULTILINE)) == {"docs", "check"}
    classifiers = PROJECT["project"]["classifiers"]
    supported = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(classifiers), re.MULTILINE)
    assert job["strategy"]["matrix"]["python"] == supported
    assert PROJECT["project"]["requires-python"] == f">={supported[0]}"
    assert re.findall(r"^RELEASE_PYTHONS \?= (.*)$", text("Makefile"), re.MULTILINE) == [
        " ".join(f"python{version}" for version in supported)
    ]


def test_what_is_called_by_a_workflow_cannot_be_moved_by_others() -> None:
    for path in sorted((ROOT / ".github/workflows").iterdir()):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert content["permissions"] == {"contents": "read"}
        uses = [step["uses"] for job in content["jobs"].values() for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", one) for one in uses)


def test_every_locked_file_has_its_hash() -> None:
    lock = text("uv.lock")
    files = re.findall(r"^.*\burl = .*$", lock, re.MULTILINE)
    assert len(files) > 1000
    assert all(re.search(r'hash = "sha256:[0-9a-f]{64}"', line) for line in files)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("![a [b]](docs/a.png)", None),
        ("![a](docs/a.png)", "![a](https://raw.githubusercontent.com/damorl/damorl/v$HFPR_VERSION/docs/a.png)"),
        ("[a](docs/a.md#b)", "[a](https://github.com/damorl/damorl/blob/v$HFPR_VERSION/docs/a.md#b)"),
        ("[a](https://arxiv.org/abs/1)", "[a](https://arxiv.org/abs/1)"),
        ("[a](#b)", "[a](#b)"),
    ],
)
def test_links_of_the_readme_lead_to_the_tag_on_the_index(written: str, shown: str | None) -> None:
    found = on_index(written)
    assert found == shown if shown else "](docs/" not in found


def on_index(readme: str) -> str:
    """The long description, before the version is put in."""
    for one in REPLACEMENTS:
        readme = re.sub(one["pattern"], one["replacement"], readme)
    return readme


def test_no_relative_link_is_left_on_the_index() -> None:
    readme = text("README.md")
    source = PROJECT["project"]["urls"]["Source"]
    targets = re.findall(r"\]\(([^)]*)\)", on_index(readme))
    assert len(targets) == len(re.findall(r"\]\([^)]*\)", readme)) > 20
    assert all(target.startswith("https://") for target in targets)
    for target in targets:
        if target.startswith(f"{source}/blob/v$HFPR_VERSION/"):
            assert (ROOT / target.removeprefix(f"{source}/blob/v$HFPR_VERSION/").split("#")[0]).exists()
    assert all(url.startswith(source) for url in PROJECT["project"]["urls"].values())


def public() -> dict[str, list[str]]:
    """The names that docs/release.md promises to keep."""
    configs = [LoopConfig(), *(algorithm.config_type() for algorithm in ALGORITHMS.values())]
    return {
        "damorl": sorted(damorl.__all__),
        "damorl.testing": sorted(damorl.testing.__all__),
        "commands": sorted([*(verb for verb in VERBS), *(f"data {verb}" for verb in DATA_VERBS)]),
        "algorithms": sorted(ALGORITHMS),
        "presets": sorted(PRESETS),
        "settings": sorted({key for config in configs for key, _ in dotted(dataclasses.asdict(config))}),
    }


def test_no_public_name_has_gone() -> None:
    """A new one is added to public.json by hand; one is taken out when its time as deprecated is over."""
    promised = json.loads((ROOT / "tests/release/public.json").read_text(encoding="utf-8"))
    found = public()
    gone = {kind: sorted(set(names) - set(found[kind])) for kind, names in promised.items()}
    assert {kind: names for kind, names in gone.items() if names} == {}


def test_nothing_of_a_release_is_committed() -> None:
    found = subprocess.run(["git", "ls-files", "dist", "build"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout == ""
