"""Cells held to the same cells of another environment, measured in the same session."""

import pytest

CELL, DDP = "tiny_words-zero2-w2-cpu", "tiny_words-ddp-w2-cpu"
OTHER = "deepspeed==0.18.2"


def statuses(project, *metrics):
    return {
        verdict["metric"]: verdict["status"]
        for verdict in project.results()["verdicts"]
        if verdict["strategy"] == "zero2" and verdict["metric"] in metrics
    }


def test_against_equal_environment_passes_without_baseline(project):
    result = project.run("--against", OTHER)
    assert result.ret == pytest.ExitCode.OK
    assert set(statuses(project, "live_bytes", "loss", "epoch_seconds").values()) == {"ok"}
    result.stdout.fnmatch_lines(["held to deepspeed 0.18.2: 4 launches"])


def test_against_interleaves_launches_of_both_environments(project):
    project.run("--against", OTHER, "--strategy", "zero2", "-k", "memory", "--repeats", "3")
    other = f"{CELL}@other"
    assert project.launches == [CELL, other, other, CELL, CELL, other]


def test_against_reports_changed_bytes_and_gradient_norm_as_regressed(project):
    project.change({"zero2": {"norm": (4.0, 3.0, 1.0, 1.0), "live": 501}})
    result = project.run("--against", OTHER)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"{CELL} live after a step: REGRESSED: 501 bytes, deepspeed 0.18.2 500 bytes*",
            f"{CELL} gradient norm by step: REGRESSED at step 2: 1, deepspeed 0.18.2 2 (-50.0%*",
        ]
    )


def test_gradient_norm_changed_in_other_environment_is_regressed(project):
    project.change({"zero2@other": {"norm": (4.0, 3.0, 1.0, 1.0)}})
    project.run("--against", OTHER)
    assert statuses(project, "gradient_norm", "loss") == {
        "gradient_norm": "regressed",
        "loss": "ok",
    }


@pytest.mark.parametrize(
    ("seconds", "status", "note"),
    [
        pytest.param([2.0, 2.002], "ok", "not slower: 1.000 times the seconds,*", id="as fast"),
        pytest.param(
            [9.0, 9.1, 2.6, 2.62, 2.6, 2.62],
            "regressed",
            "slower: 1.305 times the seconds,*",
            id="slower",
        ),
        pytest.param(
            [2.6, 2.62, 2.0, 2.002, 2.0, 2.002],
            "ok",
            "not slower: 1.00? times the seconds,*",
            id="seemed slower",
        ),
        pytest.param(
            [2.6, 2.62, 2.0, 2.6, 2.0, 2.6],
            "invalid",
            "cannot tell: *",
            id="seemed slower, is not sure",
        ),
        pytest.param(
            [1.9, 2.1], "invalid", "cannot tell: *; it would take --repeats *", id="nobody knows"
        ),
    ],
)
def test_epoch_seconds_against_are_ok_regressed_or_invalid(project, seconds, status, note):
    from fnmatch import fnmatch

    project.change({"zero2": {"seconds": seconds}})
    project.run("--against", OTHER, "-k", "epoch_seconds")
    (verdict,) = (
        one for one in project.results()["verdicts"]
        if one["metric"] == "epoch_seconds" and one["strategy"] == "zero2"
    )  # fmt: skip
    assert verdict["status"] == status
    assert fnmatch(verdict["note"], note)


def test_slower_cell_is_launched_again_once_in_both_environments(project):
    project.change({"zero2": {"seconds": [2.6, 2.62, 2.0, 2.0, 2.0, 2.0]}})
    project.run("--against", OTHER, "-k", "epoch_seconds or samples_per_second")
    other = f"{CELL}@other"
    again = [CELL, other, other, CELL] * 2
    assert [one for one in project.launches if "zero2" in one][4:] == again


def test_crash_in_other_environment_is_not_comparable(project):
    project.change({"zero2@other": {"crash": "no such op"}})
    result = project.run("--against", OTHER)
    assert result.ret == pytest.ExitCode.OK
    assert statuses(project, "live_bytes") == {"live_bytes": "not_comparable"}
    result.stdout.fnmatch_lines(["*deepspeed 0.18.2: crash: no such op*"])
    assert [one["summary"] for one in project.results()["against"]["failures"]] == ["no such op"]


def test_crash_in_own_environment_fails_session(project):
    project.change({"zero2": {"crash": "no such op"}})
    result = project.run("--against", OTHER)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["crash: no such op", "ERROR *[[]tiny_words-zero2-w2-cpu-*"])
    assert statuses(project, "live_bytes") == {}


def test_batch_size_below_other_environment_is_regressed(project):
    project.change({"zero2": {"fits": 4}})
    project.pytester.runpytest_subprocess(
        "-m", "cpu and batch_size", "-p", "no:cacheprovider", "--against", OTHER
    )
    assert statuses(project, "max_micro_batch_size") == {"max_micro_batch_size": "regressed"}


def test_results_contain_overlay_and_against_packages(project):
    project.run("--with", "accelerate==1.14", "--against", OTHER, "-k", "memory")
    found = project.results()
    assert found["environment"]["overlay"] == {"accelerate": "1.14"}
    assert found["against"]["packages"] == {"deepspeed": "0.18.2"}
    assert len(found["against"]["measurements"]) == 2
