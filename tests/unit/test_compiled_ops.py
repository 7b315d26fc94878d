"""What must be compiled: built once, and a machine that lacks something is not one that fails."""

import pytest

from zerogate.environment.compiled_ops import Missing, NativeOps
from zerogate.worker.ops import build


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
    assert ops.built == ["cpu_adam", "emulated_device"]
    later = NativeOps(tmp_path, "cpu", progress=pytest.fail)
    assert later.ensure(["cpu_adam"]) == Missing()


def test_device_is_built_again_once_its_sources_have_changed(ops, tmp_path):
    """Else every rank would compile it, within the time that a launch has for set-up."""
    assert ops.ensure(["cpu_adam"]) == Missing()
    (ops.folder / ".emulated_device-built").write_text("of an earlier release")
    later = NativeOps(tmp_path, "cpu", progress=lambda text: None)
    built = []
    later._run = lambda names: built.extend(names) or {}
    assert later.ensure(["cpu_adam"]) == Missing()
    assert built == ["emulated_device"]


def test_async_io_without_libaio_is_absent(ops):
    ops.answers["async_io"] = {"absent": "needs libaio"}
    assert ops.ensure(["async_io"]) == Missing(absent="needs libaio")
    assert ops.ensure([]) == Missing()


def test_failed_build_is_reported_and_not_marked_as_built(ops, tmp_path):
    ops.answers["cpu_adam"] = {"failed": "g++ says no"}
    assert ops.ensure(["cpu_adam"]) == Missing(failed="g++ says no")
    assert not (ops.folder / ".cpu_adam-built").exists()


def test_failed_device_build_fails_cpu_tier(ops):
    ops.answers["emulated_device"] = {"failed": "c10 has changed"}
    assert ops.ensure([]) == Missing(failed="c10 has changed")


def test_gpu_ops_are_built_apart_and_without_emulated_device(ops, tmp_path, monkeypatch):
    ops.ensure(["cpu_adam"])
    cards = NativeOps(tmp_path, "gpu", progress=lambda text: None)
    built = []
    monkeypatch.setattr(cards, "_run", lambda names: built.extend(names) or {})
    assert cards.ensure(["cpu_adam"]) == Missing()
    assert built == ["cpu_adam"], "DeepSpeed's for CUDA is another one"


def test_cpu_tier_without_compiler_is_absent_whatever_ops_a_cell_needs(ops):
    ops.answers["emulated_device"] = {"absent": "no C++ compiler; install g++"}
    for needed in ([], ["cpu_adam"]):
        assert ops.ensure(needed) == Missing(absent="no C++ compiler; install g++")


def test_device_without_compiler_is_told_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = build("emulated_device", tmp_path)
    assert "no C++ compiler" in found["absent"]
    assert "install g++" in found["absent"]


def test_device_that_does_not_compile_is_failure_with_compilers_message(tmp_path, monkeypatch):
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho 'pools.cpp:1: error: no such header' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = build("emulated_device", tmp_path)
    assert "error: no such header" in found["failed"]
    assert not list(tmp_path.glob("*.so"))


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
