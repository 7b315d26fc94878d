"""What must be compiled: built once, and a machine that lacks something is not one that fails."""

import pytest

from zerogate.environment.compiled_ops import Missing, NativeOps


@pytest.fixture
def ops(tmp_path, monkeypatch):
    """NativeOps whose builds are answered from ``ops.answers``; ``ops.built`` lists them."""
    found = NativeOps(tmp_path, "cpu", progress=lambda text: None)
    found.answers, found.built = {}, []

    def run(names):
        found.built.extend(names)
        return {name: found.answers.get(name, {}) for name in names}

    monkeypatch.setattr(found, "_run", run)
    return found


def test_built_ops_are_not_built_again(ops, tmp_path):
    assert ops.ensure(["cpu_adam"]) == Missing()
    assert ops.ensure(["cpu_adam"]) == Missing()
    assert ops.built == ["cpu_adam", "cpu_allocator"]
    later = NativeOps(tmp_path, "cpu", progress=pytest.fail)
    assert later.ensure(["cpu_adam"]) == Missing()


def test_async_io_without_libaio_is_absent(ops):
    ops.answers["async_io"] = {"absent": "needs libaio"}
    assert ops.ensure(["async_io"]) == Missing(absent="needs libaio")
    assert ops.ensure([]) == Missing()


def test_failed_build_is_reported_and_not_marked_as_built(ops, tmp_path):
    ops.answers["cpu_adam"] = {"failed": "g++ says no"}
    assert ops.ensure(["cpu_adam"]) == Missing(failed="g++ says no")
    assert not (ops.folder / ".cpu_adam-built").exists()


def test_failed_allocator_build_fails_cpu_tier(ops):
    ops.answers["cpu_allocator"] = {"failed": "c10 has changed"}
    assert ops.ensure([]) == Missing(failed="c10 has changed")


def test_gpu_ops_are_built_apart_and_without_allocator(ops, tmp_path, monkeypatch):
    ops.ensure(["cpu_adam"])
    cards = NativeOps(tmp_path, "gpu", progress=lambda text: None)
    built = []
    monkeypatch.setattr(cards, "_run", lambda names: built.extend(names) or {})
    assert cards.ensure(["cpu_adam"]) == Missing()
    assert built == ["cpu_adam"], "DeepSpeed's for CUDA is another one"


def test_allocator_without_compiler_is_no_failure(ops):
    ops.answers["cpu_allocator"] = {"absent": "no compiler"}
    assert ops.ensure([]) == Missing()


def test_stale_lock_of_killed_build_is_removed(ops):
    import os

    folder = ops.folder / "cpu_adam"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    ops.ensure([])
    assert (folder / "lock").exists(), "a lock of this moment may be held"
    os.utime(folder / "lock", (1, 1))
    ops.ensure([])
    assert not (folder / "lock").exists()
