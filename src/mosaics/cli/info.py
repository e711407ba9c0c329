"""`mosaics info`."""

from typing import Annotated

import typer

from mosaics.cli.options import Json, examples, print_json

EXAMPLES = examples(
    "mosaics info",
    "mosaics info outputs/my-dvae",
    "mosaics info user/name --json",
)


def info(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="Folder, or Hub repository; the embedded checkpoint if not given.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Say what is in a checkpoint.

    Classes, parameters, sizes, codebooks, files and a hash, of a pipeline or of a single model.
    """
    from mosaics.cli.checkpoints import checkpoint_folder, checkpoint_name
    from mosaics.cli.inspection import describe, in_words

    folder = checkpoint_folder(checkpoint)
    description = {"checkpoint": checkpoint_name(checkpoint, folder), **describe(folder)}
    if json:
        print_json(description)
    else:
        typer.echo(in_words(description))
