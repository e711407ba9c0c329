"""`mosaics generate`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mosaics.cli.options import Checkpoint, Json, examples, print_json
from mosaics.cli.requests import check_requests, read_requests
from mosaics.cli.whole_files import picture_format

EXAMPLES = examples(
    'mosaics generate "a lion on a blue background"',
    'mosaics generate "two copies of cat on green" "a rose" --num_candidates 64 --output sheet.png',
    'mosaics generate "a lion" --num_images_per_prompt 9 --seed 7 --output lions.png',
    "mosaics generate --prompts_file prompts.txt --output pictures/",
    "cat prompts.txt | mosaics generate - --output pictures/ --json",
    "mosaics generate --checkpoint user/digits --class_label 7 --output sevens/",
)


def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw; a single - reads stdin.")
    ] = None,
    prompts_file: Annotated[
        str | None, typer.Option("--prompts_file", help="File with a prompt on each line, or - for stdin.")
    ] = None,
    class_label: Annotated[
        list[str] | None,
        typer.Option("--class_label", help="Number or name of a class, for a checkpoint of classes; may be repeated."),
    ] = None,
    checkpoint: Checkpoint = None,
    output: Annotated[
        Path, typer.Option("--output", help="Picture file for one sheet, or a folder for single pictures.")
    ] = Path("outputs/generated.png"),
    num_candidates: Annotated[
        int | None,
        typer.Option(
            "--num_candidates", min=1, help="Pictures drawn of each prompt, of which the best are kept. [default: 16]"
        ),
    ] = None,
    num_images_per_prompt: Annotated[
        int, typer.Option("--num_images_per_prompt", min=1, help="Pictures kept of each prompt.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed draws the same pictures.")] = 0,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", min=0.0, help="Below 1: safer, less varied. [default: the checkpoint's own]"),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top_k", min=1, help="Draw from the k most likely codes only.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top_p", min=0.0, max=1.0, help="Draw from the likeliest codes that hold this probability."),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance_scale", min=0.0, help="Above 1: closer to the prompt. [default: the checkpoint's own]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch_size", min=1, help="Candidates computed at a time; bounds the memory, changes nothing."),
    ] = None,
    enlarge: Annotated[
        int | None, typer.Option("--enlarge", min=1, help="Times that a sheet is enlarged. [default: 4]")
    ] = None,
    json: Json = False,
) -> None:
    """Draw pictures of sentences, best first.

    Of the candidates of each sentence CLIP keeps the best. A folder gets each picture in a file of its own, and
    metadata.jsonl with prompt, seed, candidate and CLIP score; it is also a data set (an imagefolder). Given again,
    the same command goes on with a folder that is not complete.
    """
    started = time.perf_counter()
    texts, labels = read_requests(prompts or [], prompts_file, class_label or [])
    check_output(output, enlarge)

    from mosaics.cli.checkpoints import checkpoint_folder, checkpoint_hash, load_pipeline
    from mosaics.cli.drawing import Order, candidates_to_draw, draw_folder, draw_sheet

    folder = checkpoint_folder(checkpoint)
    pipe = load_pipeline(folder)
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance_scale": guidance_scale}
    order = Order(
        requests=check_requests(pipe, texts, labels),
        num_candidates=candidates_to_draw(pipe, num_candidates, num_images_per_prompt),
        num_images=num_images_per_prompt,
        seed=seed,
        sampling={name: value for name, value in sampling.items() if value is not None},
        batch_size=batch_size,
    )
    if output.suffix:
        records, drawn = draw_sheet(pipe, order, output, enlarge), len(order.requests)
    else:
        records, drawn = draw_folder(pipe, order, output, checkpoint_hash(folder))
    seconds = time.perf_counter() - started
    if json:
        print_json(_as_json(output, records, seconds))
    else:
        typer.echo(_in_words(output, len(records), drawn, order.num_candidates, seconds))


def check_output(output: Path, enlarge: int | None) -> None:
    """Raises a usage error unless `output` is a folder, or a picture file of a known kind."""
    if output.suffix:
        try:
            picture_format(output)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--output") from error
    elif enlarge is not None:
        raise typer.BadParameter("only a sheet is enlarged: give --output a picture file.", param_hint="--enlarge")


def _as_json(output: Path, records: list[Any], seconds: float) -> dict[str, Any]:
    pictures = [{"file_name": record.file_name, **record.fields} for record in records]
    return {"output": str(output), "seconds": round(seconds, 2), "pictures": pictures}


def _in_words(output: Path, pictures: int, drawn: int, candidates: int, seconds: float) -> str:
    if output.suffix:
        return f"{output}: {drawn * candidates} candidates, {seconds:.1f} s to load, draw and rank them."
    return f"{output}: {pictures} pictures; {drawn * candidates} candidates drawn now, {seconds:.1f} s."
