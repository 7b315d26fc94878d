"""The largest batch: searched without training, judged, shown, and kept apart by budget."""

import json

import pytest

from zerogate.devices.host import host_key

ONLY = ("-m", "cpu and batch_size")


@pytest.fixture
def searched(project):
    """A project whose batch sizes are recorded: 5 on every strategy."""
    assert project.run(*ONLY, "--update-baselines", "--reason", "first").ret == pytest.ExitCode.OK
    (project.path / "launches.txt").unlink()
    return project


def readings(processes=None, reasons=0):
    """What NVML read of the one device, with other processes on it, or reasons why it was throttled."""
    reading = {"used_bytes": 100, "driver_bytes": 0, "processes": processes or {}}
    return {"before": reading, "during": [reading], "reasons": reasons}


def test_memory_tests_launch_no_batch_size_search(searched):
    searched.run("-k", "memory", "--missing-baseline", "skip")
    assert searched.launches == ["tiny_words-ddp-w2-cpu", "tiny_words-zero2-w2-cpu"]


def test_batch_size_search_of_unchanged_cell_takes_two_launches(searched):
    assert searched.run(*ONLY).ret == pytest.ExitCode.OK
    assert searched.launches == ["tiny_words-ddp-w2-cpu"] * 2 + ["tiny_words-zero2-w2-cpu"] * 2
    [ddp, _] = searched.results()["batch_sizes"]
    assert (ddp["size"], ddp["launches"]) == (5, 2)
    assert (ddp["bytes_per_sample"], ddp["base_bytes"]) == (10, 50)


def test_smaller_batch_size_is_regressed_and_larger_is_improved(searched):
    searched.change({"ddp": {"fits": 6}, "zero2": {"fits": 4}})
    result = searched.run(*ONLY)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "ddp *6 *IMPROVED",
            "zero2 *4 *REGRESSED",
            "*zero2-w2-cpu largest micro-batch: REGRESSED: 4 samples, baseline 5 samples (-20.0%*",
        ]
    )


def test_batch_size_without_fitting_sample_is_oom_and_regressed(searched):
    searched.change({"zero2": {"fits": 0}})
    searched.run(*ONLY).stdout.fnmatch_lines(
        [
            "zero2 *OOM *",
            "zero2: OOM at 1: *",
            "*largest micro-batch: REGRESSED: 0 samples, baseline 5 samples*",
        ]
    )


def test_batch_size_with_other_process_on_device_is_invalid(searched):
    searched.change({"zero2": {"fits": 4, "nvml": readings(processes={77: 10})}})
    assert searched.run(*ONLY).ret == pytest.ExitCode.OK
    found = {
        one["metric"]: (one["status"], one["note"])
        for one in searched.results()["verdicts"]
        if one["strategy"] == "zero2" and one["metric"].endswith(("micro_batch_size", "at_max"))
    }
    why = "sizes not judged: process 77 was on the device too"
    assert found["max_micro_batch_size"] == ("invalid", why)
    assert found["samples_per_second_at_max"] == ("invalid", why)


def test_throttled_device_invalidates_speed_but_not_batch_size(searched):
    searched.change({"zero2": {"fits": 4, "nvml": readings(reasons=0x40)}})
    searched.run(*ONLY)
    found = {
        one["metric"]: one["status"]
        for one in searched.results()["verdicts"]
        if one["strategy"] == "zero2"
    }
    assert found["max_micro_batch_size"] == "regressed"
    assert found["samples_per_second_at_max"] == "invalid"


def test_batch_size_of_other_budget_is_not_comparable(searched):
    result = searched.run(*ONLY, "--device-memory=12GiB")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*recorded with a budget of 25769803 bytes, this is 12884901*"])


def test_baseline_recording_of_training_keeps_batch_size_metrics(searched):
    assert searched.record().ret == pytest.ExitCode.OK
    recorded = json.loads(searched.baselines.read_text())["cells"]["zero2-w2"]["metrics"]
    names = {"max_micro_batch_size", "loss", "speedup_over_ddp", "speedup_over_ddp_at_max"}
    assert names <= set(recorded)
    assert searched.run("-m", "cpu or batch_size").ret == pytest.ExitCode.OK


@pytest.mark.parametrize("size", ["24", "lots", "0GiB", "-1GiB", "24GiBs", ""])
def test_device_memory_option_with_invalid_size_is_refused(project, size):
    result = project.run(f"--device-memory={size}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --device-memory: *is not a size; expected a number*"])


def test_published_values_of_other_hardware_are_not_comparable(searched):
    folder = searched.path / "baselines" / "published"
    folder.mkdir()
    content = {
        "hardware": "titan-x2",
        "source": "an article",
        "workloads": {
            "tiny_words": {
                "ddp": {"max_micro_batch_size": 0},
                "zero2": {"max_micro_batch_size": 40, "epoch_seconds": 28.98},
                "zero3": {"max_micro_batch_size": 50},
            }
        },
    }
    (folder / "titan-x2.json").write_text(json.dumps(content))
    result = searched.run(*ONLY)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "published for titan-x2; not comparable: this is *",
            "  ddp: OOM at 1",
            "  zero2: batch 40, s/epoch 28.98",
        ]
    )
    assert "zero3" not in result.stdout.str()


def test_published_values_of_same_hardware_are_judged(searched):
    folder = searched.path / "baselines" / "published"
    folder.mkdir()
    workloads = {
        "tiny_words": {"ddp": {"max_micro_batch_size": 4}, "zero2": {"max_micro_batch_size": 40}}
    }
    content = {"hardware": host_key(), "source": "an article", "workloads": workloads}
    (folder / "here.json").write_text(json.dumps(content))
    result = searched.run(*ONLY)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*zero2-w2-cpu *published: REGRESSED: 5 samples, published 40 samples (-87.5%*"]
    )
    assert "ddp-w2-cpu max micro batch size published: REGRESSED" not in result.stdout.str()
    status = {
        (one["strategy"], one["metric"]): one["status"] for one in searched.results()["verdicts"]
    }
    assert status["ddp", "max_micro_batch_size_published"] == "improved"


def test_batch_size_oom_note_is_kept_in_training_measurement(searched):
    searched.change({"zero2": {"fits": 0}})
    searched.run("--device-memory=24GiB", "--missing-baseline", "skip")
    notes = {one["cell"]: one["notes"] for one in searched.results()["measurements"]}
    assert notes["tiny_words-zero2-w2-cpu"]["batch_base_bytes"].startswith("OOM at 1: ")


def test_published_file_with_invalid_content_is_refused(searched):
    folder = searched.path / "baselines" / "published"
    folder.mkdir()
    (folder / "junk.json").write_text('{"hardware": 3}')
    result = searched.run(*ONLY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *junk.json: *expected hardware, source and workloads"])


def test_device_memory_option_adds_batch_sizes_to_training(searched):
    result = searched.run("--device-memory=24GiB", "--missing-baseline", "skip")
    assert result.ret == pytest.ExitCode.OK
    assert "tiny_words-ddp-w2-cpu" in searched.launches
    assert {one["size"] for one in searched.results()["batch_sizes"]} == {5}
    assert searched.results()["measurements"][0]["values"]["loss"]


def test_batch_size_search_crash_is_reported_in_table_and_results(searched):
    searched.change({"zero2": {"crash": "boom"}})
    result = searched.run(*ONLY)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["zero2 *ERROR", "crash: boom"])
    [failure] = searched.results()["failures"]
    assert failure["cell"] == "tiny_words-zero2-w2-cpu"


def test_baseline_recording_of_train_batch_size_keeps_eval_entry(searched):
    content = json.loads(searched.baselines.read_text())
    content["cells"]["ddp-w2"]["metrics"]["eval_batch_base_bytes"] = {
        "launches": [5],
        "spread": 0.0,
        "value": 5,
    }
    searched.baselines.write_text(json.dumps(content))
    searched.change({"ddp": {"fits": 6}})
    searched.run(*ONLY, "--update-baselines", "--reason", "larger")
    after = json.loads(searched.baselines.read_text())["cells"]["ddp-w2"]["metrics"]
    assert after["max_micro_batch_size"]["value"] == 6
    assert after["eval_batch_base_bytes"]["value"] == 5
