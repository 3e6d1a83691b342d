from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import momalit

ROOT = Path(__file__).resolve().parents[1]


def test_the_lock_has_an_allowed_version_of_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "requirements.lock").read_text() + (ROOT / "requirements-torch.lock").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))
    locked = {canonicalize_name(name): version for name, version in pins.items()}
    for wanted in map(Requirement, (*project["dependencies"], *project["optional-dependencies"]["dev"])):
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), wanted


def test_the_lock_has_a_version_and_hashes_of_everything() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("#"))
    entry = r"[\w.-]+==[\w.]+(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(f"(?:{entry})+", text)


def test_public_names_exist_and_the_help_does_not_import_torch() -> None:
    for name in momalit.__all__:
        assert getattr(momalit, name).__name__ == name
    with pytest.raises(AttributeError, match="Missing"):
        momalit.Missing  # noqa: B018
    script = "import sys, momalit.cli as cli; cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a release would publish."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    return next(folder.glob("*.whl"))


def run(*command: str, **settings: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **settings)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fit_from(environment: Path, folder: Path) -> None:
    """Runs ``momalit fit`` from an environment in which only the wheel provides the packages."""
    variables = {**os.environ, "MOMALIT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    variables.pop("PYTHONPATH", None)
    origin = "import momalit, datamodules, callbacks; print(momalit.__file__, datamodules.__file__, callbacks.__file__)"
    files = run(str(environment / "bin" / "python"), "-c", origin, cwd=folder, env=variables).split()
    assert all(Path(file).is_relative_to(environment) for file in files), files
    small = ["--config", "overlays/quick.yaml", "--data.transitions", "1000", "--run_dir", "run"]
    run(str(environment / "bin" / "momalit"), "fit", "--config", "icg.yaml", *small, cwd=folder, env=variables)
    assert (folder / "run" / "results.json").is_file()


def test_the_wheel_has_everything_that_fit_needs(wheel: Path, tmp_path: Path) -> None:
    """The dependencies are those of this environment; the editable installation of momalit is not visible."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    site_packages = next(environment.glob("lib/python*/site-packages"))
    (site_packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    python = str(environment / "bin" / "python")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        str(wheel),
    )
    assert (site_packages / "momalit" / "py.typed").is_file()
    fit_from(environment, tmp_path)


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Downloads the dependencies."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", str(wheel))
    run(python, "-m", "pip", "check")
    fit_from(environment, tmp_path)


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
