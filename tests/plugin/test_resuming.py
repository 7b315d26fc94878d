"""A run is gone on with where there is something left of it, under what it was made under."""

import pytest


@pytest.fixture
def unfinished(project):
    """A run in which a cell could not be measured: there is something to go on with."""
    project.change({"zero2": {"crash": "boom"}})
    project.run("--missing-baseline", "skip")
    return project


def test_a_run_that_changed_is_not_resumed(unfinished):
    project = unfinished
    with (project.path / "configs" / "zero2.yaml").open("a") as file:
        file.write("# other\n")
    result = project.run("--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len(project.launches) == 2, "nothing was launched"
    result.stderr.fnmatch_lines(
        ["*--resume: the interrupted run was made under something else (configs/: * -> *"]
    )


def test_a_damaged_run_is_not_resumed(unfinished):
    project = unfinished
    (project.path / "zerogate-report" / "run.json").write_text('{"id": 7}')
    result = project.run("--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*run.json cannot be read (id: Input should be a valid string)*"])


def test_a_run_that_was_whole_is_not_resumed_but_made_again(project):
    project.run("--missing-baseline", "skip")
    assert not (project.path / "zerogate-report" / "run.json").exists()
    assert project.run("--resume", "--missing-baseline", "skip").ret == pytest.ExitCode.OK
    assert len(project.launches) == 4


def test_with_nothing_to_resume_it_is_a_run_like_any_other(project):
    assert project.run("--resume", "--missing-baseline", "skip").ret == pytest.ExitCode.OK
    assert len(project.launches) == 2
