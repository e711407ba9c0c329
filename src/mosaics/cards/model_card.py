"""The card of a model: its header, and one section for each thing a reader wants to know."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mosaics.cards.families import family_of
from mosaics.cards.layout import lay_out, num_parameters
from mosaics.cards.measurement import Measurement
from mosaics.cards.run_folder import TrainingRunFacts, find_run, read_run
from mosaics.cards.sections import (
    citation_section,
    data_section,
    evaluation_section,
    limits_section,
    training_section,
    use_section,
)


def model_card(
    model: Any,
    repo_id: str,
    *,
    runs: Iterable[str | os.PathLike | TrainingRunFacts] | None = None,
    license: str | None = None,
    datasets: Sequence[str] | None = None,
    evaluation: Sequence[Measurement] = (),
    limits: Sequence[str] = (),
    remote_code: bool = False,
) -> ModelCard:
    """Writes the card of a model or pipeline from what is known. What is not known is called "not stated".

    Data, command, settings, seed, hardware, time and numbers come from the folders of the training runs. A model that
    was loaded from the folder of its run finds it by itself, and so do the parts of a pipeline.

    Args:
        model: The model or pipeline.
        repo_id: The repository it goes to, for the program under "Use".
        runs: Folders (`output_dir`) of training runs, of the model or of the parts of a pipeline; or what
            [`~mosaics.cards.run_folder.read_run`] gave of one, which is taken for that of a single model unchecked.
        license: Licence of the weights as the Hub calls it, such as `"apache-2.0"`.
        datasets: Ids of the data sets on the Hub; that of the runs if not given.
        evaluation: Numbers besides those of the runs.
        limits: Sentences on what it cannot do, besides those that follow from its configuration.
        remote_code: Whether the repository holds the model's code too.

    Raises:
        ValueError: A folder of `runs` is no run, or one of another model.
    """
    family, parts = family_of(model), _parts(model)
    found = _runs_of(parts, runs)
    datasets = list(datasets) if datasets is not None else _datasets(found.values())
    measurements = [*_measurements(found), *evaluation]
    header = ModelCardData(
        license=license or "unknown",
        library_name=family.library_name,
        pipeline_tag=family.pipeline_tag,
        tags=["mosaics", *family.tags],
        datasets=datasets or None,
        metrics=list(dict.fromkeys(measurement.name for measurement in measurements)) or None,
        model_name=repo_id.split("/")[-1],
        eval_results=_eval_results(family.task, measurements, datasets),
    )
    size = num_parameters(parts.values())
    return lay_out(
        header,
        title=repo_id.split("/")[-1],
        introduction=f"{family.summary(model)} {size} Licence of the weights: {license or 'not stated'}.",
        use=use_section(family.use(model, repo_id), repo_id if remote_code else None),
        data=data_section(found, datasets),
        training=training_section(found),
        evaluation=evaluation_section(measurements),
        limits=limits_section([*family.limits(model), *limits]),
        citation=citation_section(family.citations),
    )


def _parts(model: Any) -> dict[str, Any]:
    """The models in a pipeline by name; a single model under the name "model"."""
    if not hasattr(model, "components"):
        return {"model": model}
    parts = model.components
    return {name: part for name, part in parts.items() if hasattr(part, "parameters")}


def _runs_of(
    parts: dict[str, Any], folders: Iterable[str | os.PathLike | TrainingRunFacts] | None
) -> dict[str, TrainingRunFacts]:
    """The run of each part that has a known one."""
    configs = {name: part.config.to_dict() for name, part in parts.items()}
    found = {name: find_run(getattr(part, "name_or_path", None), configs[name]) for name, part in parts.items()}
    for folder in folders or ():
        known = isinstance(folder, TrainingRunFacts)
        run = folder if known else read_run(folder)
        if run is None:
            raise ValueError(f"{folder} is not the folder of a training run: it has no metrics.jsonl.")
        if len(parts) == 1 and (known or run.model_type is None):  # or there is no checkpoint to compare with
            found[next(iter(parts))] = run
            continue
        same = [name for name, config in configs.items() if config.get("model_type") == run.model_type]
        fitting = [name for name in same if run.differs_from(configs[name]) is None]
        if not fitting:
            field = f", in which {run.differs_from(configs[same[0]])} differs" if same else ""
            raise ValueError(
                f"{folder} is the run of a {run.model_type!r} model{field}, not of "
                f"{', '.join(sorted(str(config.get('model_type')) for config in configs.values()))}."
            )
        found |= dict.fromkeys(fitting, run)
    return {name: run for name, run in found.items() if run is not None}


def _datasets(runs: Iterable[TrainingRunFacts]) -> list[str]:
    """Names of the data sets that somebody else can find: no paths of this machine."""
    names = [run.dataset for run in runs if run.dataset and not _is_path(run.dataset)]
    return list(dict.fromkeys(names))


def _is_path(name: str) -> bool:
    return os.path.exists(name) or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def _measurements(runs: dict[str, TrainingRunFacts]) -> list[Measurement]:
    return [
        Measurement(
            name if len(runs) == 1 else f"{part} {name}",
            value,
            command=run.command,
            dataset=run.dataset if run.dataset and not _is_path(run.dataset) else None,
            split=run.settings.get("script.eval_split"),
        )
        for part, run in runs.items()
        for name, value in run.metrics.items()
    ]


def _eval_results(task: str, measurements: Iterable[Measurement], datasets: Sequence[str]) -> list[EvalResult] | None:
    """The measurements in the form of the header, which must name a data set for each; the others are left out."""
    only = datasets[0] if len(datasets) == 1 else None
    results = [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=measurement.split,
            metric_type=measurement.name,
            metric_value=measurement.value,
        )
        for measurement in measurements
        if (dataset := measurement.dataset or only) is not None
    ]
    return results or None
