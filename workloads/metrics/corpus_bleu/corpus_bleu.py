"""Corpus BLEU with one reference per prediction, as sacrebleu computes it."""

from __future__ import annotations

import datasets
import evaluate
import sacrebleu


class CorpusBleu(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """The score lies between 0 and 100."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions, references: texts",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Value("string"),
                }
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"bleu": float(sacrebleu.corpus_bleu(predictions, [references]).score)}
