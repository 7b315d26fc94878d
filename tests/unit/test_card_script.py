"""``.ci/card``: each part once, what was cut short again, nothing lost. Python is a shell script."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEASURING = ["gpt2xl", "deberta", "blenderbot", "train", "held", "repeats"]
PARTS = [*MEASURING, "spread", "cuda", "sampling", "expandable"]
MEASURED = """
for given in "$@"; do
  case "$given" in --report-dir=*) report=${given#--report-dir=} ;; esac
done
[ -z "${report:-}" ] || { mkdir -p "$report"; echo '{"launches": 2}' >"$report/results.json"; }
"""
"""What pytest leaves where it launched something."""
ENDLESS = 'trap "exit 2" INT; echo ready; while :; do read -t 0.1 < <(:) || true; done'
"""A command that ends when interrupted, as pytest does."""
Card = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def card(tmp_path: Path) -> Card:
    """Run the script in a project of its own; ``behaves`` is what Python does with its arguments."""
    project = tmp_path / "project"
    (project / ".ci").mkdir(parents=True)
    (project / "baselines").mkdir()
    script = project / ".ci" / "card"
    script.write_text((ROOT / ".ci" / "card").read_text())
    python = tmp_path / "python"

    def card(
        behaves: str = MEASURED,
        seconds: int | str = 600,
        *parts: str,
        tier: str = "can run",
        folder: str = str(tmp_path / "out"),
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        doctor = f'[ "$3" = doctor ] && echo "gpu tier: {tier}"'
        python.write_text(
            f'#!/usr/bin/env bash\necho "$@" >>{tmp_path}/asked\n{doctor}\n{behaves}\n'
        )
        python.chmod(0o755)
        return subprocess.run(
            ["env", "--default-signal=INT", "bash", str(script), folder, str(seconds),
             *parts],
            env=os.environ
            | {"PYTHON": str(python), "ZEROGATE_CARD_LEAST_SECONDS": "1"}
            | variables,
            text=True, capture_output=True, timeout=600, check=False,
        )  # fmt: skip

    return card


def statuses(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text().strip() for path in (folder / "out").glob("*.status")}


def asked(folder: Path) -> int:
    return len((folder / "asked").read_text().splitlines())


def test_card_script_runs_every_part_once(card: Card, tmp_path: Path) -> None:
    assert card().returncode == 0
    assert statuses(tmp_path) == dict.fromkeys(PARTS, "0")
    before = asked(tmp_path)
    assert card().returncode == 0
    assert asked(tmp_path) == before + 1, "only the doctor is asked again"
    assert (tmp_path / "out" / "baselines").is_dir()


def test_failed_part_stays_failed_and_other_parts_run(card: Card, tmp_path: Path) -> None:
    failing = f'{MEASURED}case "$*" in *out/deberta*) exit 1 ;; esac'
    assert card(failing).returncode == 1
    assert statuses(tmp_path) == dict.fromkeys(PARTS, "0") | {"deberta": "1"}
    later = card()
    assert later.returncode == 1, "a later call does not forget it"
    assert "card: failed: deberta (to repeat it: rm " in later.stdout


def test_part_out_of_time_runs_again_in_next_call(card: Card, tmp_path: Path) -> None:
    """A part that ends when interrupted, as pytest does; the call has little more than its minimum."""
    first = card(f'{MEASURED}case "$*" in *out/deberta*) {ENDLESS} ;; esac', seconds=6)
    assert first.returncode == 3
    assert "no time left in deberta; call this again" in first.stdout
    assert statuses(tmp_path) == {"gpt2xl": "0"}
    assert (tmp_path / "out" / "baselines").is_dir()
    assert card().returncode == 0
    assert set(statuses(tmp_path)) == set(PARTS)


def test_part_beyond_its_own_limit_is_cut_off_and_others_run(card: Card, tmp_path: Path) -> None:
    hangs = f'{MEASURED}case "$*" in *out/gpt2xl*) {ENDLESS} ;; esac'
    first = card(hangs, ZEROGATE_CARD_PART_SECONDS="5")
    assert first.returncode == 3
    assert "card: gpt2xl was cut off after 5 s; a later call goes on with it" in first.stdout
    assert first.stdout.endswith("card: not over: gpt2xl; call this again\n")
    assert statuses(tmp_path) == dict.fromkeys(set(PARTS) - {"gpt2xl"}, "0")
    assert card().returncode == 0
    assert set(statuses(tmp_path)) == set(PARTS)


def test_part_that_builds_on_unfinished_part_waits(card: Card, tmp_path: Path) -> None:
    hangs = f'{MEASURED}case "$*" in *out/train*) {ENDLESS} ;; esac'
    first = card(hangs, ZEROGATE_CARD_PART_SECONDS="5")
    assert first.returncode == 3
    assert "card: held waits for train\n" in first.stdout
    assert set(PARTS) - set(statuses(tmp_path)) == {"train", "held"}


def test_card_script_with_named_parts_runs_only_those(card: Card, tmp_path: Path) -> None:
    assert card(MEASURED, 600, "cuda", "deberta").returncode == 0
    assert statuses(tmp_path) == {"deberta": "0", "cuda": "0"}
    alone = card(MEASURED, 600, "held")
    assert alone.returncode == 1
    assert "card: held needs what train leaves; name that part too" in alone.stdout
    assert card(MEASURED, 600, "gpt2xl deberta").returncode == 1


def test_part_for_expandable_segments_sets_them_for_itself_alone(
    card: Card, tmp_path: Path
) -> None:
    notes = f'echo "${{PYTORCH_CUDA_ALLOC_CONF:-none}} $*" >>{tmp_path}/settings\n{MEASURED}'
    assert card(notes, 600, "sampling", "expandable", "gpt2xl").returncode == 0
    settings = (tmp_path / "settings").read_text().splitlines()
    others = [line for line in settings if "out/expandable" not in line]
    assert [line.split()[0] for line in settings if line not in others] == (
        ["expandable_segments:True"]
    )
    assert {line.split()[0] for line in others} == {"none"}


LAUNCHES = """
[ -z "${report:-}" ] || {
  mkdir -p "$report/launches/cell/0"
  echo '{"cell": {}, "controller_pid": '$$', "x": 1}' >"$report/launches/cell/0/job.json"
  case "$report" in *deberta) read -r -t 60 <>"$report/../profiled" || true ;; esac
}
"""
"""What a launch writes first; the first part's lasts until a pipe says that a profile was taken."""

PY_SPY = """#!/usr/bin/env bash
echo "$@" >>{folder}/spied
while [ "$1" != --output ]; do shift; done
echo "main;train 7" >"$2"
echo taken >{folder}/out/profiled
{then}
"""


@pytest.mark.parametrize("then", ["exit 0", "exit 1"])
def test_first_launch_of_call_is_profiled(card: Card, tmp_path: Path, then: str) -> None:
    """Whatever becomes of py-spy, the part is not the worse for it."""
    spy = tmp_path / "py-spy"  # Beside Python, where pip puts it.
    spy.write_text(PY_SPY.format(folder=tmp_path, then=then))
    spy.chmod(0o755)
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "profiled")
    found = card(MEASURED + LAUNCHES, 600, "deberta", "train")
    assert found.returncode == 0, found.stdout
    (profile,) = (tmp_path / "out").glob("profile-*.txt")
    assert profile.read_text() == "main;train 7\n"
    (spied,) = (tmp_path / "spied").read_text().splitlines()
    assert re.search(r"--pid [1-9]\d* ", spied)
    assert ("card: no profile of deberta; " in found.stdout) == (then == "exit 1")


def test_absent_py_spy_is_one_line(card: Card) -> None:
    found = card(PATH="/usr/bin:/bin", HOME="/nowhere")
    assert found.returncode == 0
    assert found.stdout.count("py-spy") == 1


def test_card_script_without_time_begins_no_part(card: Card, tmp_path: Path) -> None:
    found = card(seconds=5, ZEROGATE_CARD_LEAST_SECONDS="60")
    assert found.returncode == 3
    assert "no time left for gpt2xl; call this again" in found.stdout
    assert asked(tmp_path) == 1


def test_card_script_without_gpu_begins_and_finishes_no_part(card: Card, tmp_path: Path) -> None:
    found = card(tier="cannot run: NVIDIA driver")
    assert found.returncode == 1
    assert "nothing was begun" in found.stdout
    assert statuses(tmp_path) == {}
    assert not (tmp_path / "out.tgz").exists(), "a later call would take baselines from it"
    assert card().returncode == 0


def test_part_without_launches_runs_again_in_next_call(card: Card, tmp_path: Path) -> None:
    """All of its cells skipped: memory was short, say. The next call tries again."""
    found = card(f'case "$*" in *blenderbot*) exit 0 ;; esac{MEASURED}')
    assert found.returncode == 1
    assert "card: blenderbot measured nothing; " in found.stdout
    assert set(statuses(tmp_path)) == set(PARTS) - {"blenderbot"}
    assert card().returncode == 0
    assert set(statuses(tmp_path)) == set(PARTS)


def test_card_script_on_other_machine_resumes_from_archive(card: Card, tmp_path: Path) -> None:
    recorded = (
        "mkdir -p baselines/nvidia-h200-141g-x1; echo 1 >baselines/nvidia-h200-141g-x1/a.json\n"
    )
    card(f'{recorded}{MEASURED}case "$*" in *out/deberta*) exit 1 ;; esac')
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "project" / "baselines" / "nvidia-h200-141g-x1")
    before = asked(tmp_path)
    assert card().returncode == 1
    assert asked(tmp_path) == before + 1, "only the doctor is asked again"
    assert (tmp_path / "project" / "baselines" / "nvidia-h200-141g-x1" / "a.json").exists()


def test_card_script_with_torch_wheel_of_other_driver_is_refused(
    card: Card, tmp_path: Path
) -> None:
    (tmp_path / "project" / ".whl").mkdir()
    (tmp_path / "project" / ".whl" / "torch-2.13.0-cp312-none-any.whl").write_bytes(b"")
    found = card()
    assert found.returncode == 1
    assert ".whl holds a torch" in found.stdout


def test_part_command_lines_are_accepted_and_collect_tests(card: Card, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.rmtree(project / "baselines")
    shutil.copytree(ROOT / "baselines", project / "baselines")
    for name in ("conftest.py", "configs", "pyproject.toml", "src", "tests", "workloads"):
        (project / name).symlink_to(ROOT / name)
    collected = f'{MEASURED}[ -z "${{report:-}}" ] || exec {sys.executable} "$@" --collect-only -q'
    found = card(collected)
    assert statuses(tmp_path) == dict.fromkeys(PARTS, "0"), found.stdout
    for part in MEASURING:
        assert "src/zerogate/suite/test_" in (tmp_path / "out" / f"{part}.txt").read_text()


def test_interrupted_card_script_leaves_part_unfinished(card: Card, tmp_path: Path) -> None:
    """As from a terminal: all of its process group are told."""
    card(seconds=0)  # Writes the fake.
    waiting = f'case "$*" in *out/gpt2xl*) {ENDLESS} ;; esac'
    python = tmp_path / "python"
    python.write_text(python.read_text() + waiting)
    script = tmp_path / "project" / ".ci" / "card"
    with subprocess.Popen(
        ["env", "--default-signal=INT", "bash", str(script), str(tmp_path / "out")],
        env=os.environ | {"PYTHON": str(python)},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert any(line == "ready\n" for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert "card: interrupted in gpt2xl; call this again" in said
    assert statuses(tmp_path) == {}
    assert (tmp_path / "out.tgz").exists()


def test_damaged_archive_is_reported_and_kept(card: Card, tmp_path: Path) -> None:
    card()
    archive = tmp_path / "out.tgz"
    archive.write_bytes(archive.read_bytes()[:100])
    shutil.rmtree(tmp_path / "out")
    for _ in range(2):
        found = card()
        assert found.returncode == 1
        assert "out.tgz is damaged; remove it to begin anew" in found.stdout
    assert archive.stat().st_size == 100


def test_card_script_on_folder_of_other_call_is_refused(card: Card, tmp_path: Path) -> None:
    with (tmp_path / "out.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = card()
    assert found.returncode == 1
    assert "another call is at work on " in found.stdout


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        *(("FOLDER", one, "is no folder; expected ") for one in ("gpt2xl", "60", "--help")),
        *(("SECONDS", one, "is no whole number from ") for one in ("9m", "1.5", "-1", "0")),
        ("PART", "training", f"is unknown; choose from {' '.join(PARTS)}\n"),
    ],
)
def test_card_script_with_wrong_argument_is_refused(
    card: Card, name: str, value: str, why: str
) -> None:
    found = card(MEASURED, 600, value) if name == "PART" else card(**{name.lower(): value})
    assert found.returncode == 1
    assert found.stdout.startswith(f"card: {name}: {value} {why}")
