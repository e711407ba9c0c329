"""The one file that holds the emoji pictures: how it is written and how it is read.

A row is one picture: `image` (`struct<bytes, path>` with a lossless RGBA WebP, which `datasets` reads as an `Image`),
`style`, `licence`, `hex` (code points), `emoji`, `name`, `group`, `subgroup`, `alt` (other names) and `keywords`.
The credit lines are in the file's own metadata, under `credits`.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DEFAULT_ARCHIVE = Path(__file__).parent / "emoji64.parquet"

CREDITS = (
    "Noto Emoji (styles noto and noto-v1) (c) Google, Apache-2.0",
    "Fluent Emoji (styles fluent-3d, fluent-color and fluent-flat) (c) Microsoft Corporation, MIT",
    "Names, groups and short names: emojibase and emojilib, MIT",
    "Names and keywords: Unicode CLDR, Unicode-3.0",
)

TEXT_COLUMNS = ("style", "licence", "hex", "emoji", "name", "group", "subgroup")
LIST_COLUMNS = ("alt", "keywords")
UNUSED_GROUPS = ("", "components")  # regional-indicator letters; skin-tone swatches


@dataclass(frozen=True)
class EmojiPicture:
    """One picture of the set. `image` holds the bytes of a lossless RGBA WebP."""

    image: bytes
    path: str
    style: str
    licence: str
    hex: str
    emoji: str
    name: str
    group: str
    subgroup: str
    alt: tuple[str, ...]
    keywords: tuple[str, ...]


def _schema(size: int) -> pa.Schema:
    """The columns, with the `datasets` features and the credit lines as key-value metadata."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("image", image)]
    columns += [(name, pa.string()) for name in TEXT_COLUMNS]
    columns += [(name, pa.list_(pa.string())) for name in LIST_COLUMNS]
    features = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": "string", "_type": "Value"} for name in TEXT_COLUMNS}
    features |= {name: {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"} for name in LIST_COLUMNS}
    metadata = {
        "huggingface": json.dumps({"info": {"features": features}}),
        "credits": "; ".join(CREDITS),
        "image_size": str(size),
    }
    return pa.schema(columns, metadata=metadata)


def write_archive(pictures: Iterable[EmojiPicture], path: str | os.PathLike, size: int) -> int:
    """Writes the pictures as one parquet file and returns their number.

    Pictures of regional-indicator letters and of component swatches are left out: they are no objects and have no
    keywords. The order is by style, then by code points, so that equal pictures give an equal file. The file appears
    only when it is complete.

    Args:
        pictures: The pictures, in any order.
        path: Where the file goes; its folder must exist.
        size: Side of the pictures in pixels, kept in the metadata.
    """
    kept = sorted((p for p in pictures if p.group not in UNUSED_GROUPS), key=lambda p: (p.style, p.hex))
    columns = [[{"bytes": p.image, "path": p.path} for p in kept]]
    columns += [[getattr(p, name) for p in kept] for name in TEXT_COLUMNS]
    columns += [[list(getattr(p, name)) for p in kept] for name in LIST_COLUMNS]
    schema = _schema(size)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    temporary = Path(f"{path}.tmp")
    pq.write_table(table, temporary, compression="zstd", row_group_size=1000, use_dictionary=list(TEXT_COLUMNS))
    os.replace(temporary, path)
    return len(kept)


def read_archive(
    path: str | os.PathLike = DEFAULT_ARCHIVE,
    styles: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> list[EmojiPicture]:
    """Reads the pictures of the given styles and groups (all of them by default), in the order of the file.

    Args:
        path: A file written by [`write_archive`].
        styles: Names such as `"fluent-3d"`.
        groups: Names such as `"food & drink"`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a complete emoji archive, or a style or group is not in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No emoji archive at {path}. Build one with `python examples/emoji/build.py --help`.")
    columns = ["image", *TEXT_COLUMNS, *LIST_COLUMNS]
    try:
        table = pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{path} is not a complete emoji archive ({error}). Fetch or build it again.") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{path} is not an emoji archive: it lacks the columns {missing}, it has {table.column_names}."
        )
    for argument, wanted in (("style", styles), ("group", groups)):
        present = set(table[argument].unique().to_pylist())
        unknown = sorted(set(wanted or ()) - present)
        if unknown:
            raise ValueError(f"No such {argument} in {path}: {unknown}. It has {sorted(present)}.")
    for name, wanted in (("style", styles), ("group", groups)):
        if wanted is not None:
            table = table.filter(pc.is_in(table[name], pa.array(list(wanted), pa.string())))
    images = table["image"].combine_chunks()
    columns = {name: table[name].to_pylist() for name in (*TEXT_COLUMNS, *LIST_COLUMNS)}
    columns |= {name: map(tuple, columns[name]) for name in LIST_COLUMNS}
    columns |= {"image": images.field("bytes").to_pylist(), "path": images.field("path").to_pylist()}
    return [EmojiPicture(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
