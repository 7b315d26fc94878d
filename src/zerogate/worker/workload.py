"""The base class of a workload: what is trained, on what, and how well it learned.

A workload is one file in ``workloads/`` with one subclass. Only ranks import it. The training loop
belongs to the harness (``worker.trainer``), so that every workload is timed in the same way.
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

    ``learned``: score from which the cpu tier counts as having learned, on the generated data.
    """

    better: Literal["higher", "lower"]
    learned: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """Folder that a workload reads its data set from, and the origin of the data."""

    folder: Path
    origin: Literal["generated", "real"]


class Workload(ABC):
    """Model, data, loss and quality to train. Subclass it in ``workloads/<model>_<data>.py``."""

    version: ClassVar[int]
    """Version of the file. Raise it when numbers of the old and the new one must not be compared."""

    full_parameters: ClassVar[int]
    """Parameters of the full-size model (gpu tier), tied ones counted once."""

    scale_parameters: ClassVar[int]
    """Parameters of the scale model (cpu tier), tied ones counted once."""

    repository: ClassVar[str | None] = None
    """The hub's id of the weights that training begins with; None if it begins with random ones."""

    layer_classes: ClassVar[tuple[str, ...]]
    """Names of the transformer layer classes that FSDP wraps."""

    quality: ClassVar[Mapping[str, Quality]]

    evaluates_by_generating: ClassVar[bool] = False
    """True if evaluation generates: then its batch size has a memory limit of its own."""

    averages_samples: ClassVar[bool] = True
    """True if the loss is a mean over samples; one over tokens depends on how samples are grouped."""

    recipes: ClassVar[Mapping[Tier, Recipe]]
    """Recipe of each tier; all strategies share it."""

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
        """Folder of the published weights and their tokenizer; None if they are not used.

        They are used for real data on the gpu tier if the hub's cache (``HF_HOME``) has them. Nothing
        is downloaded, so that all ranks agree.
        """
        if self.repository is None or self.tier == "cpu" or self.corpus.origin == "generated":
            return None
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(self.repository, local_files_only=True))
        except LocalEntryNotFoundError:
            return None
        # The cache may have the tokenizer alone.
        weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        return folder if weights else None

    @abstractmethod
    def build_model(self) -> torch.nn.Module:
        """Build the model in fp32, on the CPU (or sharded as it is built, under ZeRO-3).

        It is freshly initialised, or has the ``pretrained`` weights if there are any.
        """

    def build_skeleton(self) -> torch.nn.Module:
        """Build the model of ``build_model`` with arbitrary weights.

        It serves to count parameters without memory, and to shard the model as it is built, which is
        not possible while loading a checkpoint. A workload with ``pretrained`` weights overrides it.
        """
        return self.build_model()

    @abstractmethod
    def datasets(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return the training and the evaluation samples, tokenized, in file order."""

    @abstractmethod
    def collate(self, samples: list[Any]) -> Batch:
        """Return the tensors of one micro-batch; their first dimension is the batch."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean loss of one micro-batch, a scalar tensor."""
        loss: torch.Tensor = model(**batch).loss
        return loss

    @abstractmethod
    def evaluate(
        self, model: torch.nn.Module, loader: Any, accelerator: Accelerator
    ) -> dict[str, float]:
        """Score the evaluation set; every rank returns the names in ``quality``. Collective.

        ``model`` is in eval mode and gradients are off. ``loader`` yields collated batches on the
        rank's device. Gather once per batch with ``accelerator.gather_for_metrics``, one row per
        sample: it drops the padding samples of the last batch. ``eval_samples_miscounted`` checks
        that all others were gathered.
        """


def load_workload_class(path: Path) -> type[Workload]:
    """Return the one Workload subclass that ``path`` defines.

    Adds its repository root to ``sys.path``, so that workloads can share modules beside them.
    Raises ImportError if there is not exactly one subclass.
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
