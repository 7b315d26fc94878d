"""What a process may have of its host's memory, in the control groups of both versions."""

from __future__ import annotations

import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from zerogate.devices import host_memory
from zerogate.devices.host_memory import available_memory_bytes, may_lock_bytes, oom_kills

GIB = 2**30
SLURM = "slurm/uid_0/job_7/step_0"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where groups are told of; the machine itself has 100 GiB to give, and counts 9 killed."""
    monkeypatch.setattr(
        host_memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GIB)
    )
    monkeypatch.setattr(host_memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(host_memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(host_memory, "MACHINE", tmp_path / "vmstat")
    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 9\n")
    return tmp_path / "groups"


def belongs(groups: Path, *lines: str) -> None:
    (groups.parent / "own").write_text("".join(f"{line}\n" for line in lines))


def second(folder: Path, limit: int | str, used: int = 0, cached: int = 0, killed: int = 0) -> None:
    """A group of the second version."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    (folder / "memory.events").write_text(f"max 0\noom_kill {killed}\n")


def first(folder: Path, limit: int, used: int = 0, cached: int = 0, killed: int = 0) -> None:
    """A group of the first version."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {cached}\n")
    (folder / "memory.oom_control").write_text(f"under_oom 0\noom_kill {killed}\n")


def test_memory_without_control_groups_is_that_of_machine(groups: Path) -> None:
    assert available_memory_bytes() == 100 * GIB
    assert oom_kills() == 9


def test_memory_in_control_group_follows_group_limit(groups: Path) -> None:
    belongs(groups, f"0::/{SLURM}")
    second(groups / SLURM, limit=32 * GIB, used=10 * GIB, cached=4 * GIB, killed=2)
    assert available_memory_bytes() == 26 * GIB
    assert oom_kills() == 2


def test_memory_in_nested_groups_follows_least_limit(groups: Path) -> None:
    belongs(groups, f"0::/{SLURM}")
    second(groups / SLURM, limit="max")
    second((groups / SLURM).parent, limit=16 * GIB)
    second(groups / "slurm", limit=64 * GIB)
    assert available_memory_bytes() == 16 * GIB


def test_memory_in_container_is_read_from_root_group(groups: Path) -> None:
    belongs(groups, "0::/../../kubepods/pod7")
    second(groups, limit=8 * GIB, used=GIB, killed=3)
    assert available_memory_bytes() == 7 * GIB
    assert oom_kills() == 3


def test_memory_in_cgroup_v1_is_read_from_memory_tree(groups: Path) -> None:
    belongs(groups, "5:cpu,cpuacct:/elsewhere", f"4:memory:/{SLURM}", "0::/")
    first(groups / "memory" / SLURM, limit=32 * GIB, used=8 * GIB, cached=GIB, killed=1)
    first(groups / "memory", limit=2**63 - 4096)
    assert available_memory_bytes() == 25 * GIB
    assert oom_kills() == 1


def test_group_without_statistics_still_limits_memory(groups: Path) -> None:
    belongs(groups, "", "odd", "0::/a")
    second(groups / "a", limit=4 * GIB, used=GIB)
    (groups / "a" / "memory.stat").unlink()
    assert available_memory_bytes() == 3 * GIB


def test_group_beyond_its_limit_has_no_memory_left(groups: Path) -> None:
    belongs(groups, "0::/a")
    second(groups / "a", limit=GIB, used=2 * GIB)
    assert available_memory_bytes() == 0


def test_group_limit_above_machine_does_not_raise_memory(groups: Path) -> None:
    belongs(groups, "0::/all")
    second(groups / "all", limit=500 * GIB)
    assert available_memory_bytes() == 100 * GIB


@pytest.mark.parametrize("text", ["", "nonsense", "max"])
def test_unreadable_group_limit_is_ignored(groups: Path, text: str) -> None:
    belongs(groups, "0::/odd")
    second(groups / "odd", limit=GIB)
    for name in ("memory.max", "memory.events"):
        (groups / "odd" / name).write_text(text)
    assert available_memory_bytes() == 100 * GIB
    assert oom_kills() == 9


@pytest.mark.parametrize(
    ("limit", "capabilities", "expected"),
    [
        pytest.param(resource.RLIM_INFINITY, "0000000000000000", None, id="no limit"),
        pytest.param(8192, "0000000000000000", 8192, id="a limit"),
        pytest.param(8192, "0000000000004000", None, id="none for who may lock any"),
        pytest.param(8192, "nonsense", 8192, id="a kernel that does not tell"),
    ],
)
def test_may_lock_bytes_follows_rlimit_and_capability(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    capabilities: str,
    expected: int | None,
) -> None:
    monkeypatch.setattr(host_memory.resource, "getrlimit", lambda which: (limit, limit))
    monkeypatch.setattr(host_memory, "STATUS", tmp_path / "status")
    (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{capabilities}\n")
    assert may_lock_bytes() == expected
