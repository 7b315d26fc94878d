"""Quality: the model learned, and as well as it used to."""


def test_quality(gate, measurement):
    gate(*measurement.quality_better)


def test_learned(gate):
    gate.learned()
