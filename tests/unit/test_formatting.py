"""Numbers and verdicts in words: readable, and never hiding the difference they report."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from records import a_cell

from zerogate.report.formatting import number, percent, sentence
from zerogate.report.terminal import smallest_visible
from zerogate.verdicts.verdict import Verdict

MIB, GIB = 1024**2, 1024**3


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        pytest.param(None, "bytes", "-", id="nothing"),
        pytest.param(1000, "bytes", "1,000 bytes", id="below a MiB every byte"),
        pytest.param(MIB, "bytes", "1.00 MiB", id="a MiB"),
        pytest.param(87_052_000, "bytes", "83.02 MiB", id="MiB"),
        pytest.param(GIB + GIB // 4, "bytes", "1.25 GiB", id="GiB"),
        pytest.param(0.012345, "seconds", "0.0123 s", id="seconds"),
        pytest.param(96, "samples", "96 samples", id="whole"),
        pytest.param(96.0, "samples", "96 samples", id="whole, as a float"),
        pytest.param(0.69314718, "nats", "0.6931 nats", id="a fraction"),
        pytest.param(1.5, "", "1.5000", id="without a unit"),
        pytest.param(math.nan, "nats", "nan nats", id="NaN"),
        pytest.param(math.inf, "", "inf", id="infinite"),
    ],
)
def test_number_is_formatted_with_unit(value: Any, unit: str, expected: str) -> None:
    assert number(value, unit) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(0.261, "+26.1%", id="more"),
        pytest.param(-0.5, "-50.0%", id="less"),
        pytest.param(0.0, "0%", id="none"),
        pytest.param(math.inf, "changed", id="from zero"),
        pytest.param(math.nan, "changed", id="to NaN"),
    ],
)
def test_change_is_formatted_as_percentage(change: float, expected: str) -> None:
    assert percent(change) == expected


@pytest.mark.parametrize("change", [0.0005, 0.0004, 1e-5, 1e-9, 1e-300])
@pytest.mark.parametrize("sign", [1, -1])
def test_small_change_is_not_formatted_as_zero(change: float, sign: int) -> None:
    text = percent(sign * change)
    assert text[0] == ("+" if sign > 0 else "-")
    assert float(text.rstrip("%")) != 0


def a_verdict(measured: float | None, expected: float | None, **changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "cell": a_cell(),
        "metric": "peak_allocated_bytes",
        "status": "regressed",
        "unit": "bytes",
        "measured": measured,
        "expected": expected,
    }
    return Verdict(**(values | changes))


@pytest.mark.parametrize(
    ("measured", "expected", "unit"),
    [
        pytest.param(1001, 1000, "bytes", id="bytes"),
        pytest.param(100 * MIB + 1, 100 * MIB, "bytes", id="a byte more than MiB"),
        pytest.param(80 * GIB + 1, 80 * GIB, "bytes", id="a byte more than GiB"),
        pytest.param(MIB, MIB - 1, "bytes", id="on both sides of a MiB"),
        pytest.param(1.0004, 1.0005, "seconds", id="seconds"),
        pytest.param(1234.5, 1235.0, "seconds", id="many seconds"),
        pytest.param(0.69310001, 0.69310002, "nats", id="losses"),
        pytest.param(1e-9, 2e-9, "", id="small numbers"),
        pytest.param(2.00000001, 2, "", id="nearly whole"),
        pytest.param(math.nan, 1.0, "nats", id="NaN"),
        *(
            pytest.param(
                measured,
                expected,
                unit,
                id=name,
            )
            for measured, expected, unit, name in [
                (2 * 1024**4 + 1, 2 * 1024**4, "bytes", "a byte more than TiB"),
                (0.1 + 0.2, 0.3, "nats", "the last bit"),
            ]
        ),
    ],
)
def test_different_numbers_look_different_in_sentence(
    measured: float, expected: float, unit: str
) -> None:
    text = sentence(a_verdict(measured, expected, unit=unit))
    found = re.search(r"REGRESSED: (.+), baseline (.+)$", text)
    assert found is not None
    assert found[1] != found[2]


def test_equal_numbers_look_equal_in_sentence() -> None:
    assert sentence(a_verdict(MIB, MIB, status="ok")).endswith("ok: 1.00 MiB, baseline 1.00 MiB")


def test_sentence_has_cell_metric_numbers_change_and_limit() -> None:
    text = sentence(a_verdict(3 * MIB, 2 * MIB, change=0.5, tolerance=0.1))
    assert text == (
        "deberta_mrpc-zero2-w2-cpu peak allocated: REGRESSED: 3.00 MiB, baseline 2.00 MiB "
        "(+50.0%, limit 10.0%)"
    )


def test_sentence_of_series_names_step() -> None:
    text = sentence(a_verdict(0.6, 0.5, metric="loss", unit="nats", step=7))
    assert "loss by step: REGRESSED at step 7: 0.6000 nats, baseline 0.5000 nats" in text


def test_sentence_of_parity_names_other_strategy() -> None:
    text = sentence(a_verdict(0.6, 0.5, metric="loss_parity", unit="nats", against="ddp"))
    assert "loss parity: REGRESSED: 0.6000 nats, ddp 0.5000 nats" in text


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("no_baseline", "NO BASELINE"),
        ("not_comparable", "NOT COMPARABLE"),
        ("invalid", "INVALID"),
    ],
)
def test_sentence_without_comparison_gives_reason(status: str, word: str) -> None:
    text = sentence(a_verdict(None, None, status=status, note="no memory here"))
    assert text == f"deberta_mrpc-zero2-w2-cpu peak allocated: {word}: no memory here"


def test_sentence_with_note_ends_with_it() -> None:
    text = sentence(a_verdict(1, 2, note="this machine is slower"))
    assert text.endswith("; this machine is slower")


def test_smallest_visible_change_is_one_unit_or_largest_limit() -> None:
    verdicts = [
        a_verdict(5, 5, metric="live_bytes", unit="bytes", tolerance=0.0),
        a_verdict(5, 5, metric="all_reduce_calls", unit="calls", tolerance=0.0),
        a_verdict(5, 5, metric="loss", unit="nats", tolerance=0.001),
        a_verdict(5, 5, metric="loss", unit="nats", tolerance=0.003),
        a_verdict(5, 5, metric="loss_parity", unit="nats", tolerance=0.5, against="ddp"),
        a_verdict(5, None, metric="f1", unit="", tolerance=None),
    ]
    assert smallest_visible(verdicts) == "one byte or call, loss by step 0.3%"
    assert smallest_visible([]) == ""
