"""The files around the code say the same as the code."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpu_select

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))


def distribution(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return match[0].lower()


def all_of_extra(extra: str) -> Iterator[str]:
    """The distributions of an extra, those of extras that it names included."""
    for requirement in EXTRAS[extra]:
        if distribution(requirement) == PROJECT["name"]:
            for other in re.search(r"\[(.+)\]", requirement)[1].split(","):
                yield from all_of_extra(other.strip())
        else:
            yield distribution(requirement)


DEPENDENCIES = sorted(
    {distribution(requirement) for requirement in PROJECT["dependencies"]}
    | {name for x in EXTRAS for name in all_of_extra(x)}
)


def test_the_listed_packages_are_the_folders_that_hold_python():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "gpu_select").rglob("*.py")}
    expected = {".".join(folder.parts) for folder in folders}
    expected |= {path.parent.name for path in (ROOT / "kernels").glob("*/__init__.py")}
    assert sorted(SETUPTOOLS["packages"]) == sorted(expected)
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_each_kernel_package_has_its_folder_named():
    expected = {path.parent.name: f"kernels/{path.parent.name}" for path in (ROOT / "kernels").glob("*/__init__.py")}
    assert SETUPTOOLS.get("package-dir", {}) == expected


def test_the_folder_kernels_is_no_package_and_so_shadows_none():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_the_version_is_said_once_more_only_in_agreement():
    assert PROJECT["version"] == gpu_select.__version__


def test_the_public_names_are_these():
    assert gpu_select.__all__ == ["GpuSelectError", "Router", "Routes", "__version__"]


def test_all_public_names_exist():
    assert all(getattr(gpu_select, name) is not None for name in gpu_select.__all__)


def test_the_command_is_the_one_that_python_m_runs():
    assert PROJECT["scripts"] == {"gpu-select": "gpu_select.commands:main"}
    assert "from gpu_select.commands import main" in (ROOT / "gpu_select" / "__main__.py").read_text(encoding="utf-8")


def test_no_extra_brings_both_builds_of_faiss():
    assert {"faiss-cpu", "faiss-gpu"} <= set(EXTRAS)
    for extra in EXTRAS:
        assert not {"faiss-cpu", "faiss-gpu"} <= set(all_of_extra(extra)), extra
    assert not {"faiss-cpu", "faiss-gpu"} & {distribution(requirement) for requirement in PROJECT["dependencies"]}


@pytest.mark.parametrize("name", DEPENDENCIES)
def test_each_dependency_has_its_reason_in_contributing(name):
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    line = re.search(rf"^\| [^|]*`{re.escape(name)}`[^|]* \| (.+) \|$", contributing, flags=re.MULTILINE)
    assert line, f"CONTRIBUTING.md has no line for {name}"
    assert len(line[1].split()) >= 4, f"CONTRIBUTING.md gives no reason for {name}"


def test_torch_is_pinned_for_installations_and_only_bounded_for_users():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["torch==2.13.0"]
    assert "torch>=2.11" in PROJECT["dependencies"]


def test_the_install_uses_the_constraints_everywhere_and_torch_comes_first():
    installs = re.findall(r"\$\(PIP\) install (.+)", MAKEFILE)
    assert installs[0] == "-c constraints.txt torch"
    assert all("-c constraints.txt" in line or "--no-deps" in line for line in installs)


def test_an_installation_is_renewed_when_its_inputs_change():
    assert re.search(r"^\$\(INSTALLED\): pyproject.toml constraints.txt$", MAKEFILE, flags=re.MULTILINE)


def test_the_readme_names_the_two_commands_and_all_its_make_targets_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\s*(?:\$ )?make ([a-z]+)|`make ([a-z]+)`", readme, flags=re.MULTILINE))
    targets = {first or second for first, second in named}
    assert {"demo", "test"} <= targets
    assert targets <= TARGETS


def test_ci_runs_the_test_command_of_the_readme():
    run = ROOT / ".ci" / "run"
    assert "make test" in run.read_text(encoding="utf-8").splitlines()
    assert "test" in TARGETS


def test_ci_is_executable_and_stops_at_the_first_failure():
    for script in sorted((ROOT / ".ci").iterdir()):
        assert os.access(script, os.X_OK), script
        lines = script.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "#!/usr/bin/env bash"
        assert "set -euo pipefail" in lines


def test_the_licence_is_the_one_that_is_declared():
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
