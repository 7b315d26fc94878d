"""The command line: the declared options, and checks that refuse a run at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerogate.config.project import is_project

FOLDER_OPTIONS = ("report-dir", "data-dir", "baseline-dir", "with", "against")
"""Options whose value may be a folder."""

CONFIG_FILES = (
    "pytest.toml",
    "pytest.ini",
    ".pytest.ini",
    "pyproject.toml",
    "tox.ini",
    "setup.cfg",
)
"""Files by which pytest finds its root folder."""

NO_PROJECT = (
    "zerogate: no project in {}; expected a folder with configs/ and workloads/; run pytest in the "
    "project's folder, or with --rootdir"
)


def add_options(parser: pytest.Parser) -> None:
    """Declare the options, and the setting in pytest's configuration file."""
    group = parser.getgroup("zerogate", "zerogate, regression suite for sharded training")

    def add(name: str, text: str, **settings: object) -> None:
        group.addoption(name, dest=f"zerogate_{name[2:].replace('-', '_')}", help=text, **settings)

    add("--strategy", "Only these strategies (comma-separated; default: all of configs/)",
        metavar="NAMES", action="append")  # fmt: skip
    add("--workload", "Only these workloads (comma-separated; default: all of workloads/)",
        metavar="NAMES", action="append")  # fmt: skip
    add("--world-size", "Numbers of ranks (comma-separated; default: 2)",
        metavar="NUMBERS", default="2")  # fmt: skip
    add("--device-memory", "Memory of each rank's device, like 24GiB: the budget for the largest "
        "batch (default: 24GiB on the cpu tier, of which a scale model gets its share; all of it "
        "that is usable on the gpu tier)", metavar="SIZE")  # fmt: skip
    add("--share-device", "Let ranks share a CUDA device if there are fewer devices than ranks; "
        "memory, numbers and batch sizes are judged, time is not",
        action="store_true", default=False)  # fmt: skip
    add("--launcher", "Launcher: forkserver, torchrun or accelerate (default: forkserver)",
        metavar="NAME", default="forkserver")  # fmt: skip
    add("--with", "Run the ranks with this package, laid over the environment: a requirement for "
        "pip, a wheel or a checkout (repeatable)",
        metavar="REQUIREMENT", action="append", default=[])  # fmt: skip
    add("--against", "Compare cells with the same cells under this package, measured in turn in "
        "this session, and with no baseline (repeatable)",
        metavar="REQUIREMENT", action="append", default=[])  # fmt: skip
    add("--repeats", "Training launches per cell; the median is judged (default: 1; 3 when "
        "recording)", metavar="N", type=int)  # fmt: skip
    add("--jobs", "Cells whose batch sizes are searched side by side, each on CUDA devices of its own; "
        "training and all that is timed runs alone (default: 1)",
        metavar="N", default="1")  # fmt: skip
    add("--data-dir", "Folder with the real data sets, each in its own folder: mrpc, mudoconv, "
        "wikitext2 (default: generated data)", metavar="DIR")  # fmt: skip
    add("--baseline-dir", "Folder with the baselines (default: baselines/cpu-gloo on the cpu tier, "
        "baselines/<hardware> on the gpu tier; with --data-dir these names end in -real-data)",
        metavar="DIR")  # fmt: skip
    add("--update-baselines", "Record the measurements as new baselines; needs --reason",
        action="store_true", default=False)  # fmt: skip
    add("--reason", "Why the baselines change; stored with them", metavar="TEXT")
    add("--missing-baseline", "What to do about a metric without a baseline: fail or skip "
        "(default: fail)", metavar="WHAT", default="fail")  # fmt: skip
    add("--resume", "Continue the interrupted run in the report folder, without repeating what it "
        "measured", action="store_true", default=False)  # fmt: skip
    add("--require-cells", "Exit with 1 if no requested cell was measured, as where all of them skip "
        "because the driver is broken", action="store_true", default=False)  # fmt: skip
    add("--report-dir", "Folder for results.json, records and logs (default: zerogate-report)",
        metavar="DIR")  # fmt: skip
    parser.addini(
        "zerogate_deadline_seconds",
        "Longest time of a launch in seconds (default: 300 on the cpu tier, 21600 on the gpu tier)",
        default="",
    )


def option(config: pytest.Config, name: str) -> object:
    """Return the value of ``--name``, as pytest parsed it."""
    value: object = config.getoption(f"zerogate_{name.replace('-', '_')}")
    return value


def below(config: pytest.Config, given: str) -> Path:
    """Return the absolute path that the user typed relative to the folder that pytest started in."""
    try:
        path = Path(given).expanduser()
    except RuntimeError:  # ~nobody
        path = Path(given)
    return (config.invocation_params.dir / path).resolve()


def refuse_lost_root(config: pytest.Config) -> None:
    """Raise UsageError if pytest took the value of one of our options for the folder of the tests.

    pytest looks for the root folder before it knows any plugin's options.
    """
    here = config.invocation_params.dir
    if not is_project(here) or config.rootpath == here or _is_configured_above(config, here):
        return
    for name in FOLDER_OPTIONS:
        value = option(config, name) or []
        words = [value] if isinstance(value, str) else value
        assert isinstance(words, list)
        given = next((one for one in words if below(config, one).is_dir()), None)
        if given:
            raise pytest.UsageError(
                f"--{name}: pytest looks for tests in {given}; write it in one word: "
                f"--{name}={given}"
            )


def _is_configured_above(config: pytest.Config, here: Path) -> bool:
    """Return whether ``here`` has no pytest configuration of its own, but a folder above it has."""
    own = any((here / name).is_file() for name in CONFIG_FILES)
    return not own and config.inipath is not None and here.is_relative_to(config.inipath.parent)


def refuse_workers(config: pytest.Config) -> None:
    """Raise UsageError if pytest-xdist would measure several cells at the same time.

    Other tests of a project may use workers: only runs over ``testpaths`` are refused.
    """
    specs = getattr(config.option, "tx", None) or []
    workers = sum(int(spec.split("*")[0]) if "*" in spec else 1 for spec in specs)
    suite = [config.rootpath / path for path in config.getini("testpaths")]
    given = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    measures = not suite or any(
        path.is_relative_to(folder) or folder.is_relative_to(path)
        for path in given
        for folder in suite
    )
    if workers > 1 and measures and not hasattr(config, "workerinput"):
        raise pytest.UsageError(
            f"-n: {workers} workers would measure beside each other and change each other's "
            "memory and time; run without -n, or with -n0"
        )
