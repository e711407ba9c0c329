"""Evaluates what `mosaics evaluate` was given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mosaics.cli.checkpoints import (
    checkpoint_folder,
    checkpoint_name,
    load_code_prior,
    load_image_tokenizer,
    load_pipeline,
    pipeline_entries,
)
from mosaics.cli.plugin import Plugin
from mosaics.data.training_data import NO_COMPOSERS, load_train_data
from mosaics.evaluation.correctness import Judge
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
        plugin: The user's own data sets and judge.
        judge: Folder of the judge of captions, which `plugin` loads.
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
    plugin: Plugin | None = None
    judge: Path | None = None

    def load(self, image_size: int) -> Any:
        """The data set, with pictures of this side."""
        composers = NO_COMPOSERS if self.plugin is None else self.plugin.datasets
        return load_train_data(self.dataset, image_size, self.options, composers, split=self.split)

    def load_judge(self, dataset: Any) -> Judge | None:
        """The judge of the captions of the data set; `None` if there is to be none."""
        if self.plugin is None or self.judge is None:
            return None
        return self.plugin.load_judge(self.judge, dataset)

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
        ValueError: The checkpoint cannot do that, has none of the wanted metrics, or draws nothing to judge.
    """
    folder = checkpoint_folder(source)
    is_pipeline = pipeline_entries(folder) is not None
    if kind == "generation" and not is_pipeline:
        raise ValueError(f"{folder} holds no pipeline (no model_index.json), so it generates nothing.")
    if task.judge is not None and not is_pipeline:
        raise ValueError(f"{folder} holds no pipeline (no model_index.json), so it draws nothing that --judge judges.")
    evaluations = []  # all is loaded before anything is computed
    if kind != "generation" and task.metrics_of(RECONSTRUCTION_METRICS) != []:
        evaluations.append(_reconstruction(folder, task))
    if is_pipeline and kind != "reconstruction" and task.metrics_of(GENERATION_METRICS) != []:
        evaluations.append(_generation(folder, task))
    if not evaluations:
        raise ValueError(
            f"none of the metrics {', '.join(task.metrics or ())} is one of {kind or 'what this checkpoint does'}."
        )
    results = [evaluation() for evaluation in evaluations]
    for result in results:
        result.checkpoint = checkpoint_name(source, folder)
    return results


def _reconstruction(folder: Path, task: Task) -> Callable[[], EvaluationResult]:
    model = load_image_tokenizer(folder)
    return partial(
        evaluate_reconstruction,
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


def _generation(folder: Path, task: Task) -> Callable[[], EvaluationResult]:
    pipe = load_pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    tokenizer = pipe.dvae if hasattr(pipe, "dvae") else pipe.vqvae
    clip = None
    if task.clip is not None:
        from mosaics.pipelines.reranking import load_clip

        model, processor = load_clip(task.clip)
        clip = (model.to(pipe.device), processor)
    dataset = task.load(tokenizer.config.image_size)
    return partial(
        evaluate_generation,
        pipe,
        dataset,
        num_prompts=task.num_prompts,
        num_candidates=task.num_candidates,
        seed=task.seed,
        metrics=task.metrics_of(GENERATION_METRICS),
        networks=FeatureNetworks(**task.networks),
        clip=clip,
        judge=task.load_judge(dataset),
        name=f"{task.dataset} ({task.split})",
        progress_bar=True,
    )
