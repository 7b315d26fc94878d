"""The base class of a workload: what is trained, on what, and how well it learned.

A workload is one file in ``workloads/`` with one subclass. Only ranks import it. The training loop
is the harness's (``rank.train``), so that every workload is timed in the same way.
"""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from zerogate.protocol.cell import Tier
from zerogate.protocol.record import Recipe

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

Batch = dict[str, "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Quality:
    """One quality metric of a workload.

    ``chance``: what a model that learned nothing scores on the generated data.
    ``learned``: what the cpu tier must reach on the generated data to count as having learned.
    """

    better: Literal["higher", "lower"]
    chance: float
    learned: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """The folder a workload reads its data set from, and whose data it is."""

    folder: Path
    origin: Literal["generated", "real"]


class Workload(ABC):
    """What is trained: model, data, loss, quality. Subclass it in ``workloads/<model>_<data>.py``."""

    version: ClassVar[int]
    """Raise it when numbers of the old and the new file must not be compared."""

    full_parameters: ClassVar[int]
    """Parameters of the full-size model (gpu tier), tied ones counted once."""

    scale_parameters: ClassVar[int]
    """Parameters of the scale model (cpu tier), tied ones counted once."""

    repository: ClassVar[str | None] = None
    """The hub's id of the weights that training begins with; None where it begins with random ones."""

    layer_classes: ClassVar[tuple[str, ...]]
    """Names of the transformer layer classes that FSDP wraps."""

    quality: ClassVar[Mapping[str, Quality]]

    evaluates_by_generating: ClassVar[bool] = False
    """Whether evaluation generates, so that its batch size is limited by memory in its own way."""

    averages_samples: ClassVar[bool] = True
    """Whether the loss is a mean over samples; one over tokens depends on how samples are grouped."""

    recipes: ClassVar[Mapping[Tier, Recipe]]
    """How each tier trains; every strategy shares it."""

    def __init__(self, *, tier: Tier, corpus: Corpus) -> None:
        self.tier = tier
        self.corpus = corpus

    @property
    def recipe(self) -> Recipe:
        return self.recipes[self.tier]

    @property
    def parameters(self) -> int:
        return self.full_parameters if self.tier == "gpu" else self.scale_parameters

    @cached_property
    def pretrained(self) -> Path | None:
        """The folder of the published weights and their tokenizer, for real data on the gpu tier, where
        the hub's cache (``HF_HOME``) has them. Nothing is downloaded: ranks must not disagree on it.
        """
        if self.repository is None or self.tier == "cpu" or self.corpus.origin == "generated":
            return None
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(self.repository, local_files_only=True))
        except LocalEntryNotFoundError:
            return None
        # A tokenizer alone may have been loaded at some time.
        weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        return folder if weights else None

    @abstractmethod
    def build_model(self) -> torch.nn.Module:
        """The model in fp32, on the CPU (or sharded as built, under ZeRO-3): freshly initialised, or
        with the ``pretrained`` weights where there are any.
        """

    def build_skeleton(self) -> torch.nn.Module:
        """``build_model``'s model with weights of no matter which value: to be measured without memory,
        and to be sharded as it is built, which loading a checkpoint does not go together with. Whoever
        has ``pretrained`` weights overrides it.
        """
        return self.build_model()

    @abstractmethod
    def datasets(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Training and evaluation samples, tokenized, in file order."""

    @abstractmethod
    def collate(self, samples: list[Any]) -> Batch:
        """Samples to the tensors of one micro-batch, first dimension the batch."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Mean loss of one micro-batch, a scalar tensor."""
        loss: torch.Tensor = model(**batch).loss
        return loss

    @abstractmethod
    def evaluate(
        self, model: torch.nn.Module, loader: Any, accelerator: Accelerator
    ) -> dict[str, float]:
        """Score the evaluation set, collectively; every rank returns the names in ``quality``.

        ``model`` is in eval mode and gradients are off. ``loader`` yields collated batches on the
        rank's device; gather once per batch, a row per sample, with
        ``accelerator.gather_for_metrics``, so that the padding samples of the last batch are not
        counted and the others are (``eval_samples_miscounted``).
        """


def load_workload_class(path: Path) -> type[Workload]:
    """The one Workload subclass that ``path`` defines.

    Its repository root goes on ``sys.path``, so that workloads can share modules beside them.
    Raises ImportError when there is not exactly one.
    """
    sys.path.insert(0, str(path.parent.parent))
    name = f"workloads.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Workload) and value.__module__ == name
    ]
    if len(found) != 1:
        raise ImportError(
            f"{path}: {len(found)} subclasses of Workload; expected exactly one; "
            "keep one class per workload file"
        )
    return found[0]
