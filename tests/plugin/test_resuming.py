"""A run is gone on with where there is something left of it, under what it was made under."""

import pytest


@pytest.fixture
def unfinished(project):
    """A run in which a cell could not be measured: there is something to go on with."""
    project.change({"zero2": {"crash": "boom"}})
    project.run("--missing-baseline", "skip")
    return project


def test_resume_after_config_change_is_refused(unfinished):
    project = unfinished
    with (project.path / "configs" / "zero2.yaml").open("a") as file:
        file.write("# other\n")
    result = project.run("--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len(project.launches) == 2, "nothing was launched"
    result.stderr.fnmatch_lines(
        ["*--resume: the interrupted run was made under something else (configs/: * -> *"]
    )


def test_resume_of_damaged_run_file_is_refused(unfinished):
    project = unfinished
    (project.path / "zerogate-report" / "run.json").write_text('{"id": 7}')
    result = project.run("--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*run.json cannot be read (id: Input should be a valid string)*"])


def test_resume_of_complete_run_launches_all_cells_again(project):
    project.run("--missing-baseline", "skip")
    assert not (project.path / "zerogate-report" / "run.json").exists()
    assert project.run("--resume", "--missing-baseline", "skip").ret == pytest.ExitCode.OK
    assert len(project.launches) == 4


def test_resume_without_earlier_run_launches_all_cells(project):
    assert project.run("--resume", "--missing-baseline", "skip").ret == pytest.ExitCode.OK
    assert len(project.launches) == 2
