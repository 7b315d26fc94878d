"""The command line: frozen, documented, and every mistake said in one line before any launch."""

import re
import subprocess
import sys

import pytest

OPTIONS = {
    "--strategy", "--workload", "--world-size", "--launcher", "--repeats", "--data-dir",
    "--baseline-dir", "--update-baselines", "--reason", "--missing-baseline", "--report-dir",
    "--device-memory", "--resume", "--share-device", "--with",
    "--against", "--require-cells", "--jobs",
}  # fmt: skip


def test_help_lists_exactly_expected_options(project):
    text = project.pytester.runpytest_subprocess("--help").stdout.str()
    group = text.split("regression suite for sharded training:")[1].split("\n\n")[0]
    assert set(re.findall(r"^  (--[a-z-]+)", group, re.MULTILINE)) == OPTIONS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--strategy", "zero4"],
            "ERROR: --strategy: unknown strategy 'zero4'; choose from ddp, zero2; "
            "did you mean 'zero2'?",
            id="strategy",
        ),
        pytest.param(
            ["--workload", "gpt"],
            "ERROR: --workload: unknown workload 'gpt'; choose from tiny_words",
            id="workload",
        ),
        pytest.param(["--world-size", "0"], "ERROR: --world-size: '0' is not a number of*", id="zero"),
        pytest.param(["--world-size", "two"], "ERROR: --world-size: 'two' is not a*", id="word"),
        pytest.param(["--world-size", "\u00b2"], "ERROR: --world-size: '*' is not a number*", id="2"),
        pytest.param(["--world-size", "9" * 30], "ERROR: --world-size: '99*' is not*", id="huge"),
        pytest.param(
            ["--baseline-dir=nowhere"], "ERROR: --baseline-dir: *nowhere is no folder;*", id="nowhere"
        ),
        pytest.param(["-o", "zerogate_deadline_seconds=inf"], "ERROR: zerogate_deadline*", id="inf"),
        pytest.param(["--launcher", "mpi"], "ERROR: --launcher: 'mpi' is unknown; choose*", id="mpi"),
        pytest.param(["--repeats", "0"], "ERROR: --repeats: 0 is too few; expected 1 or*", id="none"),
        pytest.param(["--update-baselines"], "ERROR: --update-baselines: no --reason;*", id="why"),
        pytest.param(["--reason", "x"], "ERROR: --reason: only means something with*", id="reason"),
        pytest.param(
            ["--update-baselines", "--reason", "x", "--repeats", "2"],
            "ERROR: --repeats: 2 is too few; expected 3 or more: a baseline needs its spread",
            id="two",
        ),
        pytest.param(["--missing-baseline", "ok"], "ERROR: --missing-baseline: 'ok' is*", id="ok"),
        pytest.param(["--data-dir", "."], "ERROR: --data-dir: *has no folder 'words' for*", id="data"),
        pytest.param(["--report-dir", "configs/ddp.yaml"], "ERROR: --report-dir: cannot write*",
                     id="report"),
        pytest.param(["--with", "a=1"], "ERROR: --with: 'a=1' is neither a requirement*", id="with"),
        pytest.param(
            ["--against", "a=1"], "ERROR: --against: 'a=1' is neither a requirement*", id="against",
        ),
        pytest.param(
            ["--against", "a", "--resume"], "ERROR: --against: not with --resume; both*",
            id="against what was",
        ),
        pytest.param(
            ["--against", "a", "--repeats", "1"],
            "ERROR: --repeats: 1 is too few; expected 2 or more: launches are compared in pairs*",
            id="no pair",
        ),
        pytest.param(
            ["--with", "a", "--update-baselines", "--reason", "x"],
            "ERROR: --with: not with --update-baselines; baselines are of the environment itself*",
            id="with what is no baseline",
        ),
        pytest.param(["--jobs", "0"], "ERROR: --jobs: '0' is not a number of cells; *", id="no job"),
        pytest.param(["--jobs", "x"], "ERROR: --jobs: 'x' is not a number of cells; *", id="jobs"),
        pytest.param(
            ["--jobs", "2"],
            "ERROR: --jobs: the cpu tier's ranks share this machine's cores; timed and counted "
            "launches run alone; leave out --jobs, or use -m gpu",
            id="jobs on the cpu tier",
        ),
        pytest.param(
            ["--jobs", "2", "-m", "gpu and batch_size"],
            "ERROR: --jobs: *conftest.py launches jobs in its own way (pytest_zerogate_launch)*",
            id="jobs by a hook",
        ),
        pytest.param(
            ["--jobs", "2", "--against", "a"], "ERROR: --jobs: not with --against; both*",
            id="jobs against",
        ),
        pytest.param(["-n", "2"], "ERROR: -n: 2 workers would measure beside each other*", id="xdist"),
    ],
)  # fmt: skip
def test_invalid_option_is_one_line_usage_error_before_launch(project, arguments, message):
    result = project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    assert not (project.path / "launches.txt").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("configs/zero2.yaml", "a: [", "*zero2.yaml: line 1: *", id="yaml"),
        pytest.param(
            "configs/zero2.yaml",
            "distributed_tpye: DEEPSPEED",
            "*zero2.yaml: distributed_tpye: not a key of an Accelerate config; "
            "did you mean 'distributed_type'?",
            id="key",
        ),
        pytest.param(
            "baselines/cpu-gloo/tiny_words.json",
            '{"schema_version": 1, "workload": "tiny_words", "cell": {}}',
            "*tiny_words.json: cell: unknown key; remove it",
            id="baseline-key",
        ),
        pytest.param(
            "baselines/cpu-gloo/tiny_words.json",
            '{"schema_version": 2, "workload": "tiny_words", "cells": {}}',
            "*tiny_words.json: schema_version: 2; this release reads 1;*",
            id="baseline-version",
        ),
    ],
)
def test_invalid_config_or_baseline_file_is_usage_error_before_launch(project, name, text, message):
    path = project.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not (project.path / "launches.txt").exists()


def test_plugin_prints_nothing_in_unrelated_project(pytester):
    pytester.makepyfile("def test_something(): pass")
    result = pytester.runpytest_subprocess("-W", "error")
    result.assert_outcomes(passed=1)
    assert "zerogate" not in result.stdout.str().replace("plugins: ", "").split("rootdir")[0]


def test_collection_imports_no_training_library(project):
    script = (
        "import pytest, sys\n"
        "status = pytest.main(['--collect-only', '-q', '-m', 'cpu'])\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'deepspeed'} & set(sys.modules)\n"
        "sys.exit(f'status {status}, imported {heavy}' if status or heavy else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "test_memory[tiny_words-zero2-w2-cpu-live_bytes]" in result.stdout


def test_report_dir_option_taken_as_test_folder_is_refused(project, tmp_path_factory):
    there = tmp_path_factory.mktemp("report")
    result = project.run("--report-dir", str(there))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --report-dir: pytest looks for tests in {there}; write*"])
    assert project.run(f"--report-dir={there}", "--collect-only").ret == pytest.ExitCode.OK


def test_collection_reads_no_baseline_and_writes_no_report(project):
    project.baselines.parent.mkdir(parents=True)
    project.baselines.write_text("{")
    assert project.run("--collect-only").ret == pytest.ExitCode.OK
    assert not (project.path / "zerogate-report").exists()


def test_report_folder_locked_by_other_session_is_refused(project):
    from filelock import FileLock

    report = project.path / "zerogate-report"
    report.mkdir()
    with FileLock(report / ".lock"):
        result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --report-dir: another session is writing to *"])


def test_project_below_configured_repository_is_found(project):
    """A repository with a pytest configuration of its own, and the project in a folder below it."""
    folder = project.path / "training"
    folder.mkdir()
    for name in ("configs", "workloads", "claims", "conftest.py", "change.json"):
        (project.path / name).rename(folder / name)
    (project.path / "tox.ini").unlink()
    (project.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    command = [sys.executable, "-m", "pytest", "-m", "cpu", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*command, "-k", "test_memory", "--missing-baseline=skip"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert found.returncode == pytest.ExitCode.OK, found.stdout
    assert "2 launches; everything is in zerogate-report/results.json" in found.stdout
    assert (folder / "zerogate-report" / "results.json").exists()


@pytest.mark.parametrize("words", [(), ("-m", "cpu", "--strategy", "zero2")], ids=str)
def test_suite_outside_any_project_is_usage_error(pytester, words):
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "--pyargs", "zerogate.suite", *words
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: zerogate: no project in *; expected a folder with conf*"])


def test_claim_outside_any_project_is_one_clear_error(pytester):
    pytester.makepyfile("def test_mine(zerogate_session): ...")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["zerogate: no project in *; expected a folder with configs/ and*"])
    assert "KeyError" not in str(result.stdout)
