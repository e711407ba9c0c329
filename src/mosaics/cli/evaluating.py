"""Evaluates what `mosaics evaluate` was given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaics.cli.checkpoints import (
    checkpoint_folder,
    checkpoint_name,
    load_code_prior,
    load_image_tokenizer,
    load_pipeline,
    pipeline_entries,
)
from mosaics.data.training_data import load_train_data
from mosaics.evaluation.generation import GENERATION_METRICS, evaluate_generation
from mosaics.evaluation.networks import FeatureNetworks
from mosaics.evaluation.reconstruction import RECONSTRUCTION_METRICS, evaluate_reconstruction
from mosaics.evaluation.result import EvaluationResult


@dataclass(frozen=True)
class Task:
    """On what to evaluate, and how.

    Args:
        dataset: As `--dataset` of the training scripts.
        split: Its split.
        options: More arguments of the data set.
        num_images: Pictures to reconstruct, at most.
        num_prompts: Captions to draw, at most.
        num_candidates: Candidates of each caption.
        batch_size: Pictures reconstructed at a time.
        seed: Seed of the drawn pictures.
        clip: CLIP to score with, by folder or Hub id.
        metrics: Only these; all if `None`.
        networks: Arguments of [`FeatureNetworks`].
    """

    dataset: str
    split: str
    options: Mapping[str, Any]
    num_images: int
    num_prompts: int
    num_candidates: int
    batch_size: int
    seed: int
    clip: str | None
    metrics: Sequence[str] | None
    networks: Mapping[str, Any]

    def load(self, image_size: int) -> Any:
        """The data set, with pictures of this side."""
        return load_train_data(self.dataset, image_size, self.options, split=self.split)

    def metrics_of(self, known: Sequence[str]) -> list[str] | None:
        """Those of the wanted metrics that one kind of evaluation knows; `None` for all of them."""
        return None if self.metrics is None else [name for name in self.metrics if name in known]


def evaluate_checkpoint(source: str | None, task: Task, kind: str | None) -> list[EvaluationResult]:
    """Evaluates the reconstruction and the generation of a checkpoint, or what it has of the two.

    Args:
        source: Folder or Hub id; `None` is the embedded checkpoint.
        task: On what, and how.
        kind: `"reconstruction"` or `"generation"`, to do only that.

    Raises:
        ValueError: The checkpoint cannot do that, or has none of the wanted metrics.
    """
    folder = checkpoint_folder(source)
    is_pipeline = pipeline_entries(folder) is not None
    if kind == "generation" and not is_pipeline:
        raise ValueError(f"{folder} holds no pipeline (no model_index.json), so it generates nothing.")
    results = []
    if kind != "generation" and task.metrics_of(RECONSTRUCTION_METRICS) != []:
        results.append(_reconstruction(folder, task))
    if is_pipeline and kind != "reconstruction" and task.metrics_of(GENERATION_METRICS) != []:
        results.append(_generation(folder, task))
    if not results:
        raise ValueError(
            f"none of the metrics {', '.join(task.metrics or ())} is one of {kind or 'what this checkpoint does'}."
        )
    for result in results:
        result.checkpoint = checkpoint_name(source, folder)
    return results


def _reconstruction(folder: Any, task: Task) -> EvaluationResult:
    model = load_image_tokenizer(folder)
    return evaluate_reconstruction(
        model,
        task.load(model.config.image_size),
        num_images=task.num_images,
        batch_size=task.batch_size,
        metrics=task.metrics_of(RECONSTRUCTION_METRICS),
        networks=FeatureNetworks(**task.networks),
        prior=load_code_prior(folder),
        name=f"{task.dataset} ({task.split})",
        progress_bar=True,
    )


def _generation(folder: Any, task: Task) -> EvaluationResult:
    pipe = load_pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    tokenizer = pipe.dvae if hasattr(pipe, "dvae") else pipe.vqvae
    clip = None
    if task.clip is not None:
        from mosaics.pipelines.reranking import load_clip

        model, processor = load_clip(task.clip)
        clip = (model.to(pipe.device), processor)
    return evaluate_generation(
        pipe,
        task.load(tokenizer.config.image_size),
        num_prompts=task.num_prompts,
        num_candidates=task.num_candidates,
        seed=task.seed,
        metrics=task.metrics_of(GENERATION_METRICS),
        networks=FeatureNetworks(**task.networks),
        clip=clip,
        name=f"{task.dataset} ({task.split})",
        progress_bar=True,
    )
