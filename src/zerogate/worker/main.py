"""A rank's entry point: reads the job, trains, and writes a record, also when it fails.

``python -m zerogate.worker.main JOB`` under torchrun or accelerate; ``run`` from the fork server.
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

from zerogate.protocol.heartbeat import stacks_path
from zerogate.protocol.job import Job, job_path, read_job
from zerogate.protocol.redact import masked
from zerogate.worker.parent_death import exit_with_controller
from zerogate.worker.record_builder import RecordBuilder

EXIT_OOM = 77
EXIT_ERROR = 1


def run(folder: Path) -> int:
    """Run the job in ``folder`` as the rank that the environment names; return the exit status.

    The caller must end the process with it at once: after a failure peers may hang in a collective,
    and this process must not wait for them.
    """
    started = time.perf_counter()
    job = read_job(job_path(folder))
    exit_with_controller(job.controller_pid)
    rank = int(os.environ["RANK"])
    share_device(job)
    # The controller requests stacks when a launch is late. Opened now: the disk may be full by then.
    stacks = stacks_path(folder, rank).open("w")
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    faulthandler.enable(all_threads=True)  # To the log if a library crashes.
    record = RecordBuilder(job, rank)
    try:
        from zerogate.worker.oom import is_device_oom
        from zerogate.worker.probe_job import probe_cell
        from zerogate.worker.train_job import train_cell

        if job.preload:
            sys.path.insert(0, job.root_folder)
        for entry in job.preload:
            path, _, function = entry.partition("::")
            runpy.run_path(path)[function]()
    except BaseException as error:
        record.write("error", error)
        _print(error)
        return EXIT_ERROR
    try:
        {"training": train_cell, "probe": probe_cell}[job.purpose](job, record, started)
    except BaseException as error:
        oom = is_device_oom(error)
        record.write("oom" if oom else "error", error)
        _print(error)
        return EXIT_OOM if oom else EXIT_ERROR
    record.write("ok")
    stacks_path(folder, rank).unlink(missing_ok=True)  # Nobody requested stacks.
    return 0


def share_device(job: Job) -> None:
    """Assign this rank its device if there are more ranks than devices.

    Accelerate and DeepSpeed use the device with the number LOCAL_RANK, which they read when they are
    set up, not when they are imported: a fork server has imported them. NCCL reads its variables when
    it makes a communicator. It lets ranks share a device if one of them allows it, from 2.30 on
    (``worker.accelerator`` handles older releases). It may then hang for lack of multiprocessors, so
    its CTAs are limited.
    """
    if job.shared_devices:
        local = int(os.environ["LOCAL_RANK"]) % job.shared_devices
        os.environ["LOCAL_RANK"] = str(local)
        os.environ.setdefault("NCCL_MULTI_RANK_GPU_ENABLE", "1")
        os.environ.setdefault("NCCL_MAX_CTAS", "8")


def _print(error: BaseException) -> None:
    """Print the error to the log, without secrets: the log is shared."""
    print(masked("".join(traceback.format_exception(error))), file=sys.stderr, flush=True)


def main() -> None:
    status = run(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
