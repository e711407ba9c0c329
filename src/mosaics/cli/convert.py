"""`mosaics convert`."""

from pathlib import Path
from typing import Annotated

import typer

from mosaics.cli.options import Json, examples, print_json

EXAMPLES = examples(
    "mosaics convert --list",
    "mosaics convert encoder.pkl decoder.pkl --output outputs/openai-dvae",
    "mosaics convert old.pt --format openai-dvae --output outputs/dvae --dtype float16",
)


def convert(
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="SOURCE", help="Files or folders of the other project.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder to write; it must not hold anything yet.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="Name of the format. [default: found by content]")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, float16 or bfloat16. [default: as in the source]")
    ] = None,
    list_formats: Annotated[bool, typer.Option("--list", help="List the formats and end.")] = False,
    json: Json = False,
) -> None:
    """Convert weights of other projects.

    The result is a folder that Mosaics loads. Nothing in the files is executed, and what comes of them is loaded again
    and compared with the source before it appears.
    """
    if list_formats:
        _list(json)
        return
    if not sources:
        raise typer.BadParameter("give the files to convert, or --list.", param_hint="SOURCE")
    if output is None:
        raise typer.BadParameter("name the folder to write.", param_hint="--output")
    from mosaics.converters import FORMATS
    from mosaics.converters import convert as convert_weights

    if format is not None and format not in FORMATS:
        raise typer.BadParameter(f"{format!r} is not known; known are {', '.join(FORMATS)}.", param_hint="--format")
    report = convert_weights(sources if len(sources) > 1 else sources[0], output, format=format, dtype=dtype)
    if json:
        fields = ("format", "models", "num_tensors", "num_compared", "dropped")
        print_json({"output": str(report.output), **{name: getattr(report, name) for name in fields}})
        return
    models = ", ".join(f"{name} in {place}" if place else name for place, name in report.models.items())
    typer.echo(
        f"{report.output}: {models}, from {report.format}. {report.num_tensors} tensors; {report.num_compared:,} "
        "numbers were read back and compared with the source."
    )
    for key, reason in report.dropped.items():
        typer.echo(f"left out {key}: {reason}")


def _list(json: bool) -> None:
    from mosaics.converters import FORMATS

    if json:
        fields = ("description", "sources", "project", "weights_license")
        print_json({name: {field: getattr(form, field) for field in fields} for name, form in FORMATS.items()})
        return
    for name, form in FORMATS.items():
        typer.echo(f"{name}\n  {form.description}\n  needs: {', '.join(form.sources)}\n  from: {form.project}")
