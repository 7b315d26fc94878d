"""The nightly's files: one command, on a machine of one's own, never for a stranger's pull request."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMMAND = ".ci/nightly"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return dict(yaml.safe_load((ROOT / ".github" / "workflows" / "nightly-gpu.yml").read_text()))


def test_only_the_clock_and_a_person_start_it(workflow: dict[Any, Any]) -> None:
    # YAML 1.1 reads the key ``on`` as true.
    assert set(workflow[True]) == {"schedule", "workflow_dispatch"}
    assert workflow["permissions"] == {"contents": "read"}


def test_it_runs_on_a_machine_with_cards_and_keeps_the_report(workflow: dict[Any, Any]) -> None:
    job = workflow["jobs"]["gpu"]
    assert {"self-hosted", "gpu"} <= set(job["runs-on"])
    kept = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert [(step["if"], step["with"]["path"]) for step in kept] == [
        ("always()", "zerogate-report")
    ]


def test_what_a_person_types_is_data(workflow: dict[Any, Any]) -> None:
    """An expression inside ``run`` would be pasted into the script."""
    scripts = [step["run"] for step in workflow["jobs"]["gpu"]["steps"] if "run" in step]
    assert scripts == [f"{COMMAND} $ARGUMENTS"]


def test_slurm_runs_the_same_command() -> None:
    lines = (ROOT / "nightly" / "gpu.sbatch").read_text().splitlines()
    assert lines[-1] == f'exec {COMMAND} "$@"'


@pytest.mark.parametrize("code", [0, 1])
def test_the_command_keeps_pytests_exit_code_and_writes_the_summary(
    tmp_path: Path, code: int
) -> None:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "nightly"
    script.write_text((ROOT / ".ci" / "nightly").read_text())
    binaries = tmp_path / ".nightly" / "bin"
    binaries.mkdir(parents=True)
    tox = f"echo $@; echo '=== zerogate ==='; echo the table; exit {code}"
    for name, text in (("python", "true"), ("tox", tox)):
        (binaries / name).write_text(f"#!/bin/sh\n{text}\n")
        (binaries / name).chmod(0o755)
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "python3").write_text("#!/bin/sh\nexit 0\n")
    (fake / "python3").chmod(0o755)
    summary = tmp_path / "summary.md"
    result = subprocess.run(
        ["bash", str(script), "--strategy", "zero3_offload"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ
        | {"PATH": f"{fake}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(summary)},
    )
    assert result.returncode == code
    report = tmp_path / "zerogate-report"
    assert f"run -e gpu -- --report-dir={report} --resume --strategy zero3_offload" in result.stdout
    assert summary.read_text() == "```\n=== zerogate ===\nthe table\n```\n"
