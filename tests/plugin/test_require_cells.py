"""``--require-cells``: a run that measured nothing of what was asked for is not green."""

import pytest

GPU = ("-m", "gpu", "-p", "no:cacheprovider", "--require-cells")
LINE = (
    "require-cells: none of the 2 requested cells was measured: needs 2 CUDA devices, found 0; "
    "zerogate doctor says what is missing"
)


def test_run_whose_cells_all_skip_exits_with_1_and_says_why(project):
    result = project.pytester.runpytest_subprocess(*GPU)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines[-1] == LINE
    section = result.stdout.str().split(" zerogate ===")[1].splitlines()
    assert LINE in section[1:3], "also where the nightly's summary begins"


def test_run_that_measured_one_cell_is_judged_as_usual(project):
    project.change({"ddp": {"crash": "boom"}})
    result = project.run("--require-cells", "-k", "memory", "--missing-baseline", "skip")
    assert "require-cells" not in result.stdout.str()
    project.change({})
    result = project.run("--require-cells", "-k", "memory", "--missing-baseline", "skip")
    assert result.ret == pytest.ExitCode.OK


def test_run_whose_only_cell_fails_names_it_too(project):
    project.change({"zero2": {"crash": "boom"}})
    result = project.run("--require-cells", "-k", "memory", "--strategy", "zero2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines[-1] == "require-cells: the requested cell was not measured; see above"


def test_run_without_cells_exits_with_1(project):
    result = project.pytester.runpytest_subprocess(*GPU, "-k", "nothing_of_this_name")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines[-1].startswith("require-cells: no cell was requested; ")


def test_collection_only_requires_no_measurement(project):
    result = project.pytester.runpytest_subprocess(*GPU, "--collect-only", "-q")
    assert result.ret == pytest.ExitCode.OK
    assert "require-cells" not in result.stdout.str()


def test_mistake_in_option_keeps_its_exit_code(project):
    result = project.pytester.runpytest_subprocess(*GPU, "--strategy", "zero4")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "require-cells" not in result.stdout.str()
