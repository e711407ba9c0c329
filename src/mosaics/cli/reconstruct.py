"""`mosaics reconstruct`."""

from pathlib import Path
from typing import Annotated

import typer

from mosaics.cli.options import Checkpoint, Json, examples, print_json

EXAMPLES = examples(
    "mosaics reconstruct photo.jpg",
    "mosaics reconstruct photos/ --checkpoint outputs/my-vqvae --output outputs/seen --codes",
)


def reconstruct(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE", help="Picture files, or folders of them.")],
    checkpoint: Checkpoint = None,
    output: Annotated[Path, typer.Option("--output", help="Folder to write.")] = Path("outputs/reconstructions"),
    image_size: Annotated[
        int | None,
        typer.Option("--image_size", min=1, help="Side that pictures are resized to. [default: the checkpoint's]"),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Pictures computed at a time.")] = 16,
    codes: Annotated[bool, typer.Option("--codes", help="Write the grids of codes too, as NAME.npz.")] = False,
    json: Json = False,
) -> None:
    """Turn pictures into codes and back.

    The central square of each picture is resized. Left in each written picture is what went in, right what came back;
    reconstructions.jsonl has the PSNR of each.
    """
    from mosaics.cli.checkpoints import checkpoint_folder, load_image_tokenizer
    from mosaics.cli.reconstructing import find_pictures, write_reconstructions

    model = load_image_tokenizer(checkpoint_folder(checkpoint))
    rows, refused = write_reconstructions(
        model, find_pictures(pictures), output, image_size or model.config.image_size, batch_size, codes
    )
    if json:
        print_json({"output": str(output), "pictures": rows, "refused": refused})
    else:
        for row in rows:
            psnr = "exact" if row["psnr"] is None else f"{row['psnr']:.2f} dB"
            typer.echo(f"{row['source']}: {psnr}, {output / row['file_name']}")
    for reason in refused:
        typer.echo(f"mosaics: error: {reason}", err=True)
    if refused:
        raise typer.Exit(1)
