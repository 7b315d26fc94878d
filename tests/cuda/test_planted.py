"""256 MiB that nobody asked for are seen in a real launch, by NVML, as a regression."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device here; .ci/card runs this on one", allow_module_level=True)

from zerogate.config.options import Options  # noqa: E402
from zerogate.metrics.aggregation import DEVICE_PEAKS  # noqa: E402
from zerogate.metrics.device_use import device_use  # noqa: E402
from zerogate.metrics.measurement import Measurement, measure  # noqa: E402
from zerogate.metrics.table import METRICS  # noqa: E402
from zerogate.protocol.cell import parse_cell  # noqa: E402
from zerogate.session.factory import open_session  # noqa: E402
from zerogate.session.runner import JobChanges  # noqa: E402
from zerogate.verdicts.baselines import MetricBaseline  # noqa: E402
from zerogate.verdicts.verdict import compare  # noqa: E402

ROOT = Path(__file__).parents[2]
CELL = parse_cell("deberta_mrpc-ddp-w1-gpu")


def test_device_peak_with_256_mib_planted_is_regressed(tmp_path: Path) -> None:
    options = Options(root=ROOT, report_folder=tmp_path, launcher="torchrun")
    session = open_session(
        options,
        launch_hook=lambda job, folder: None,
        progress=lambda update: None,
        save=lambda session: None,
    )

    def launched(name: str, *preload: str) -> Measurement:
        found = session.runner.launch_variant(CELL, name, JobChanges(steps=4, preload=preload))
        uses = device_use(found)
        for record in found.ranks:
            assert record.device is not None
            assert not uses[record.rank].missing
            assert uses[record.rank].peak_bytes >= record.device.peak_reserved_bytes > 0
        return measure(CELL, [found])

    try:
        plain = launched("plain")
        planted = launched("planted", f"{ROOT}/tests/cuda/planted.py::hold_256_mib")
    finally:
        session.close()
    assert plain.device_source == planted.device_source
    name = DEVICE_PEAKS[plain.device_source]
    before = plain.scalar(name)
    expected = MetricBaseline(value=before, spread=0.0, launches=(before,))
    assert compare(CELL, METRICS[name], planted.scalar(name), expected).status == "regressed"
