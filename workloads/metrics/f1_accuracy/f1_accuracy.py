"""F1 of the positive class and accuracy, the two scores of GLUE's MRPC."""

from __future__ import annotations

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score


class F1Accuracy(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Both scores lie between 0 and 1; class 1 is the positive one."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions, references: class indices, 0 or 1",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("int64"),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {
            # A model that never answers 1 has no precision; it scores 0, without a warning.
            "f1": float(f1_score(references, predictions, zero_division=0)),
            "accuracy": float(accuracy_score(references, predictions)),
        }
