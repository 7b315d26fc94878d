"""The nightly's files: one command, on a machine of one's own, never for a stranger's pull request."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMMAND = ".ci/nightly"
GIVEN = '$ARGUMENTS ${REASON:+--update-baselines --reason="$REASON"}'
Nightly = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return dict(yaml.safe_load((ROOT / ".github" / "workflows" / "nightly-gpu.yml").read_text()))


def test_workflow_is_read_only_and_starts_by_schedule_or_dispatch(workflow: dict[Any, Any]) -> None:
    # YAML 1.1 reads the key ``on`` as true.
    assert set(workflow[True]) == {"schedule", "workflow_dispatch"}
    assert workflow["permissions"] == {"contents": "read"}


def test_workflow_runs_on_gpu_runner_and_uploads_report(workflow: dict[Any, Any]) -> None:
    job = workflow["jobs"]["gpu"]
    assert {"self-hosted", "gpu"} <= set(job["runs-on"])
    kept = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert [(step["if"], step["with"]["path"].split()) for step in kept] == [
        ("always()", ["zerogate-report", "baselines"])
    ]


def test_workflow_checkout_keeps_files_but_no_credentials(workflow: dict[Any, Any]) -> None:
    (checkout,) = [
        step for step in workflow["jobs"]["gpu"]["steps"] if "checkout" in step.get("uses", "")
    ]
    assert checkout["with"] == {"clean": False, "persist-credentials": False}


def test_workflow_input_is_not_expanded_into_script(workflow: dict[Any, Any]) -> None:
    """An expression inside ``run`` would be pasted into the script."""
    scripts = [step["run"] for step in workflow["jobs"]["gpu"]["steps"] if "run" in step]
    assert scripts == [f"{COMMAND} {GIVEN}"]


def test_slurm_batch_file_runs_nightly_command() -> None:
    lines = (ROOT / "nightly" / "gpu.sbatch").read_text().splitlines()
    assert lines[-1] == f'exec {COMMAND} "$@"'


@pytest.fixture
def nightly(tmp_path: Path) -> Nightly:
    """Run the command in a project whose tox is a shell script."""
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "nightly"
    script.write_text((ROOT / ".ci" / "nightly").read_text())
    binaries, fake = tmp_path / ".nightly" / "bin", tmp_path / "fake"
    for folder in (binaries, fake):
        folder.mkdir(parents=True)

    def nightly(tox: str, **variables: str) -> subprocess.Popen[str]:
        version = '[ "$1" != -V ] || echo Python 3.12'
        python = f'echo "$(basename "$0") $*" >>{tmp_path}/asked; {version}'
        for path, text in (
            (fake / "python3", python), (fake / "python3.12", python),
            (binaries / "python", version), (binaries / "tox", tox),
        ):  # fmt: skip
            path.write_text(f"#!/usr/bin/env bash\n{text}\n")
            path.chmod(0o755)
        # Whoever runs these tests in the background ignores SIGINT, and so would what they start.
        return subprocess.Popen(
            ["env", "--default-signal=INT", "bash", str(script), "--strategy", "zero3_offload"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "PATH": f"{fake}:{os.environ['PATH']}",
                "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            }
            | variables,
        )

    return nightly


@pytest.mark.parametrize("code", [0, 1])
def test_nightly_command_keeps_exit_code_and_writes_summary(
    tmp_path: Path, nightly: Nightly, code: int
) -> None:
    process = nightly(f"echo $@; echo '=== zerogate ==='; echo the table; exit {code}")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    given = f"--require-cells --report-dir={tmp_path}/zerogate-report --strategy zero3_offload"
    assert given in output
    summary = (tmp_path / "summary.md").read_text()
    assert summary == "```\n=== zerogate ===\nthe table\n```\n"


def test_nightly_command_on_sigterm_interrupts_pytest_and_waits(
    tmp_path: Path, nightly: Nightly
) -> None:
    process = nightly(
        "trap 'echo \"=== zerogate ===\"; echo what was measured; exit 2' INT; "
        "echo there; while :; do read -t 0.1 < <(:) || true; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert "what was measured" in (tmp_path / "summary.md").read_text()


def test_nightly_summary_without_tables_has_last_lines(tmp_path: Path, nightly: Nightly) -> None:
    """As where tox cannot install what pytest needs."""
    nightly("echo no index reachable; exit 1").communicate(timeout=60)
    assert (tmp_path / "summary.md").read_text() == (
        "```\nnothing was measured; the last lines:\nno index reachable\n```\n"
    )


def test_nightly_command_runs_named_python(tmp_path: Path, nightly: Nightly) -> None:
    nightly("exit 0", PYTHON="python3.12").communicate(timeout=60)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[-1] == "python3.12 -m venv .nightly"
    assert not any(line.startswith("python3 ") for line in asked)


def test_nightly_environment_of_other_python_is_made_anew(tmp_path: Path, nightly: Nightly) -> None:
    nightly("exit 0").communicate(timeout=60)
    python = tmp_path / "fake" / "python3.13"
    python.write_text((tmp_path / "fake" / "python3").read_text().replace("3.12", "3.13"))
    python.chmod(0o755)
    nightly("exit 0", PYTHON="python3.13").communicate(timeout=60)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[-1] == "python3.13 -m venv --clear .nightly"


@pytest.mark.parametrize("python", ["python3.99", "false"])
def test_nightly_command_without_python_is_refused_and_summary_says_so(
    tmp_path: Path, nightly: Nightly, python: str
) -> None:
    process = nightly("exit 0", PYTHON=python)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    why = (
        f"nightly: {python} is not a Python that runs; name another: PYTHON=python3.12 .ci/nightly"
    )
    assert output == f"{why}\n"
    assert why in (tmp_path / "summary.md").read_text()
