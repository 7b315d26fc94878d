"""From measurements to pytest's outcomes, exit codes and messages."""

import json

import pytest

ON_A_CARD = """
import zerogate.devices.cards, zerogate.devices.assignment, zerogate.session.rank_setup
from zerogate.devices.cards import Card

cards = lambda: (Card("NVIDIA Tiny", "GPU-0", 4 * 2**30),)
zerogate.devices.assignment.cuda_devices = zerogate.devices.cards.cuda_devices = cards
zerogate.session.rank_setup.cuda_lacks = lambda environment: ""


@pytest.hookimpl(tryfirst=True)
def pytest_zerogate_launch(job, folder):
    raise OutOfMemoryError(f"{job.cell.id}: rank 0 in train: CUDA out of memory")
"""
"""A machine with a card that no cell fits on."""

CELL = "tiny_words-zero2-w2-cpu"


@pytest.fixture
def recorded(project):
    """The project with baselines of its usual values."""
    assert project.record().ret == pytest.ExitCode.OK
    (project.path / "launches.txt").unlink()
    return project


def test_metrics_equal_to_baseline_pass(recorded):
    result = recorded.run()
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes().keys() <= {"passed", "deselected"}


def test_cell_is_launched_once_for_all_its_tests(recorded):
    recorded.run()
    assert sorted(recorded.launches) == ["tiny_words-ddp-w2-cpu", CELL]


def test_strategy_option_launches_reference_without_judging_it(recorded):
    result = recorded.run("--strategy", "zero2")
    assert result.ret == pytest.ExitCode.OK
    assert sorted(recorded.launches) == ["tiny_words-ddp-w2-cpu", CELL]
    assert {verdict["strategy"] for verdict in recorded.results()["verdicts"]} == {"zero2"}


def test_memory_tests_launch_no_reference(recorded):
    recorded.run("--strategy", "zero2", "-k", "memory")
    assert recorded.launches == [CELL]


def test_live_bytes_one_above_baseline_are_regressed(recorded):
    recorded.change({"zero2": {"live": 501}})
    result = recorded.run("-v")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(
        [
            f"*test_memory[[]{CELL}-live_bytes[]] REGRESSED (+0.2%)*",
            f"{CELL} live after a step: REGRESSED: 501 bytes, baseline 500 bytes (+0.2%, limit 0%)",
        ]
    )


def test_peak_bytes_below_baseline_pass_as_improved(recorded):
    recorded.change({"zero2": {"peak": 900}})
    result = recorded.run("-v")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*peak_allocated_bytes[]] IMPROVED (-10.0%)*"])


def test_gradient_norm_regression_names_step_and_both_values(recorded):
    recorded.change({"zero2": {"norm": (4.0, 3.0, 1.5, 1.0)}})
    result = recorded.run()
    result.stdout.fnmatch_lines(
        [f"{CELL} gradient norm by step: REGRESSED at step 2: 1.5000, baseline 2 (-25.0%*"]
    )


def test_loss_out_of_parity_fails_while_recording(recorded):
    recorded.change({"zero2": {"loss": (3.0, 2.0, 1.1, 0.5)}})
    result = recorded.record()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [f"{CELL} loss parity: REGRESSED at step 2: 1.1000 nats, ddp 1 nats *"]
    )


def test_low_accuracy_is_reported_as_regressed_and_not_learned(recorded):
    recorded.change({"zero2": {"accuracy": 0.5}})
    result = recorded.run()
    result.stdout.fnmatch_lines(
        [
            f"{CELL} accuracy: REGRESSED: 0.5000, baseline 0.9000*",
            f"{CELL} accuracy learned: REGRESSED: 0.5000, needed 0.8000*the model did not learn",
        ]
    )


def test_crashed_cell_is_reported_once_and_other_cells_are_measured(recorded):
    recorded.change({"zero2": {"crash": f"{CELL}: rank 1 in train: ValueError: boom"}})
    result = recorded.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = result.parseoutcomes()
    assert outcomes["errors"] > 1
    assert "failed" not in outcomes
    result.stdout.fnmatch_lines(
        ["crash: *rank 1 in train: ValueError: boom", "Traceback: boom", "log: rank1.log",
         "reproduce: pytest -m cpu"]
    )  # fmt: skip
    text = result.stdout.str()
    assert text.count("Traceback: boom") == 1
    results = recorded.results()
    assert [cell["cell"] for cell in results["measurements"]] == ["tiny_words-ddp-w2-cpu"]
    assert results["failures"][0]["kind"] == "crash"


def test_speedup_below_baseline_on_same_hardware_is_regressed(recorded):
    recorded.change({"zero2": {"seconds": 4.0}})
    result = recorded.run()
    result.stdout.fnmatch_lines(
        [
            f"{CELL} speedup over DDP: REGRESSED: 0.5000 x, baseline 1 x (-50.0%, *; "
            "DDP 2.00 s an epoch, this 4.00 s"
        ]
    )


def test_single_slow_launch_is_repeated_and_passes(recorded):
    recorded.change({"zero2": {"seconds": [9.0, 2.0, 2.0]}})
    result = recorded.run("--strategy", "zero2")
    assert result.ret == pytest.ExitCode.OK
    # Both again, since a speedup is of both.
    assert [recorded.launches.count(cell) for cell in ("tiny_words-ddp-w2-cpu", CELL)] == [3, 3]


def test_crash_of_confirming_launch_is_reported_as_error(recorded):
    recorded.change({"zero2": {"seconds": 9.0, "crash_in_launch": 1}})
    result = recorded.run("--strategy", "zero2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["crash: *boom", "reproduce: pytest -m cpu", "zero2 *ERROR"])
    assert "Traceback (most" not in result.stderr.str()


def test_slower_cell_than_on_other_hardware_passes_with_note(recorded):
    text = recorded.baselines.read_text()
    baselines = json.loads(text)
    for cell in baselines["cells"].values():
        cell["provenance"]["hardware"] = "another-machine"
    recorded.baselines.write_text(json.dumps(baselines))
    recorded.change({"zero2": {"seconds": 4.0}})
    result = recorded.run()
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*recorded on another-machine, this is *"])


def test_other_workload_version_has_no_baseline(recorded):
    recorded.change({"zero2": {"version": 2, "peak": 5000}})
    result = recorded.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*NO BASELINE*of other settings (workload_version: 1 -> 2)*"])


def test_invalid_reference_config_is_refused_before_launch(recorded):
    (recorded.path / "configs" / "ddp.yaml").write_text("distributed_type: NONE")
    result = recorded.run("--strategy", "zero2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*ddp.yaml: distributed_type: 'NONE'; expected MULTI_GPU*"])
    assert not (recorded.path / "launches.txt").exists()


def test_usage_error_keeps_previous_results(recorded):
    recorded.run()
    before = recorded.results()
    recorded.run("--launcher", "mpi")
    assert recorded.results() == before


def test_partial_recording_keeps_speedup_baseline(recorded):
    recorded.change({"zero2": {"live": 501}})
    assert recorded.record("--strategy", "zero2", "-k", "memory").ret == pytest.ExitCode.OK
    metrics = json.loads(recorded.baselines.read_text())["cells"]["zero2-w2"]["metrics"]
    assert metrics["live_bytes"]["value"] == 501
    assert metrics["speedup_over_ddp"]["value"] == 1.0


def test_cell_out_of_parity_is_not_recorded_without_parity_tests(recorded):
    before = json.loads(recorded.baselines.read_text())["cells"]["zero2-w2"]
    recorded.change({"zero2": {"loss": (3.0, 2.0, 1.1, 0.5), "live": 501}})
    recorded.record("-k", "memory")
    assert json.loads(recorded.baselines.read_text())["cells"]["zero2-w2"] == before


def test_missing_baseline_fails_with_recording_hint(project):
    result = project.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*NO BASELINE*record one with --update-baselines --reason*"])


def test_missing_baseline_with_skip_option_is_skipped(project):
    result = project.run("--missing-baseline", "skip", "-k", "test_memory.py")
    outcomes = result.parseoutcomes()
    assert "passed" not in outcomes
    assert outcomes["skipped"] == 26


def test_second_recording_leaves_baseline_file_unchanged(recorded):
    before = recorded.baselines.read_bytes()
    assert recorded.record().ret == pytest.ExitCode.OK
    assert recorded.baselines.read_bytes() == before


def test_recording_launches_three_times_and_writes_values_and_reason(project):
    project.record()
    assert len(project.launches) == 6
    entry = json.loads(project.baselines.read_text())["cells"]["zero2-w2"]
    assert entry["metrics"]["live_bytes"] == {"launches": [500] * 3, "spread": 0.0, "value": 500}
    assert entry["provenance"]["reason"] == "first"


def test_gpu_cells_without_devices_are_skipped_with_one_reason(project):
    result = project.pytester.runpytest_subprocess("-m", "gpu", "--strategy", "zero2")
    assert result.ret == pytest.ExitCode.OK
    lines = [line for line in result.outlines if line.startswith("SKIPPED")]
    assert len(lines) == 1, "one for each reason"
    assert lines[0].endswith("needs 2 CUDA devices, found 0")
    assert not (project.path / "launches.txt").exists()


def test_gpu_cell_out_of_memory_without_baseline_is_skipped(project):
    text = (project.path / "conftest.py").read_text()
    (project.path / "conftest.py").write_text(text + ON_A_CARD)
    result = project.pytester.runpytest_subprocess(
        "-m", "gpu", "-p", "no:cacheprovider", "-k", "memory", "--share-device"
    )
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["SKIPPED * out of memory: *; no baseline says that it ever fitted here"]
    )


def test_run_without_tier_launches_available_cells(recorded):
    result = recorded.pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.OK
    assert sorted(recorded.launches) == ["tiny_words-ddp-w2-cpu", CELL]


def test_summary_table_fits_80_columns_and_shows_verdicts(recorded):
    recorded.change({"zero2": {"live": 501, "seconds": 4.0}})
    lines = recorded.run().stdout.lines
    start = next(
        index for index, line in enumerate(lines) if line.startswith("tiny_words, 2 ranks")
    )
    table = lines[start : start + 6]
    assert max(map(len, table)) <= 80
    assert any(line.split()[:1] == ["zero2"] and line.endswith("REGRESSED") for line in table)
    assert any(line.split()[:1] == ["ddp"] and line.endswith("ok") for line in table)


def test_unwritable_results_file_fails_run_but_table_is_shown(recorded):
    (recorded.path / "zerogate-report" / "results.json").unlink()
    (recorded.path / "zerogate-report" / "results.json").mkdir()
    result = recorded.run("-k", "memory")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["zero2 *ok", "cannot write */results.json*"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_recording_prints_baseline_path(project):
    project.record().stdout.fnmatch_lines(["recorded baselines/cpu-gloo/tiny_words.json"])


def test_baseline_without_settings_fails_memory_tests(recorded):
    baselines = json.loads(recorded.baselines.read_text())
    for cell in baselines["cells"].values():
        cell["settings"] = {}
    recorded.baselines.write_text(json.dumps(baselines))
    assert recorded.run("-k", "memory").ret == pytest.ExitCode.TESTS_FAILED


def test_report_folder_without_free_space_is_refused(project):
    project.pytester.makeconftest(
        "import shutil\nfrom types import SimpleNamespace\n"
        "shutil.disk_usage = lambda folder: SimpleNamespace(free=5000)\n"
    )
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--report-dir: 5000 bytes are free in *zerogate-report*"])
