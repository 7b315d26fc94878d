"""The speed at the largest batch: never from a launch beside others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records import a_failed_record, a_record

from zerogate.launch.errors import OutOfMemoryError
from zerogate.metrics.device_use import LaunchRecords
from zerogate.protocol.job import ProbeRequest
from zerogate.protocol.record import Probed
from zerogate.session.batch_size import ProbeLaunch, find_batch_size, time_alone

FITS = 5


def launch(asked: list[tuple[ProbeRequest, int]], *, alone: bool) -> ProbeLaunch:
    """Return a launch in which FITS samples fit; ``asked`` gets what it is asked for."""

    def probe(request: ProbeRequest, index: int) -> LaunchRecords:
        asked.append((request, index))
        sizes = list(range(request.sizes[0], request.stop or request.sizes[0] + 1))
        sizes += request.sizes[1:]
        seconds = (3.0, 0.5, 0.5) if alone else (3.0, 9.0, 9.0)
        fitted = tuple(
            Probed(
                size=size, peak_allocated_bytes=10 * size, forward_bytes=size, step_seconds=seconds
            )
            for size in sizes
            if size <= FITS
        )
        if too_large := [size for size in sizes if size > FITS]:
            error = OutOfMemoryError("out of memory")
            failed = a_failed_record(0, outcome="oom")
            error.record = replace(
                failed,
                probed=fitted,
                probing=too_large[0],
                budget_bytes=55,
                recipe=a_record().recipe,
            )
            raise error
        record = a_record(probed=fitted, budget_bytes=55)
        return LaunchRecords(ranks=(record,), alone=alone)

    return probe


@pytest.mark.parametrize("alone", [True, False])
def test_search_beside_others_finds_same_size_without_speed(alone: bool) -> None:
    found, _ = find_batch_size(launch([], alone=alone), "train", None)
    assert (found.size, found.headroom_bytes) == (FITS, 5)
    assert found.samples_per_second == (FITS * 2 / 0.5 if alone else None)


def test_speed_comes_from_one_more_launch_alone() -> None:
    found, _ = find_batch_size(launch([], alone=False), "train", None)
    asked: list[tuple[ProbeRequest, int]] = []
    timed = time_alone(launch(asked, alone=True), found)
    assert asked == [(ProbeRequest(kind="train", sizes=(FITS,)), found.launches)]
    more = {"samples_per_second": FITS * 2 / 0.5, "launches": found.launches + 1}
    assert timed == replace(found, **more)
