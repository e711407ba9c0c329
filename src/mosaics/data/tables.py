"""Tables of captioned pictures by way of `datasets`: parquet files, saved datasets, sets on the Hub.

The pictures stay bytes: `datasets` would die at a bad one without saying which.
"""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetDict, Features, Image, load_dataset, load_from_disk

from mosaics.data.rows import TableRows
from mosaics.data.skipped import BadDataError
from mosaics.data.streams import ParquetStream, TableStream

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp", "jpeg")


def open_parquet(
    files: list[Path], streaming: bool, image_column: str, cache_dir: str | os.PathLike | None
) -> TableRows | ParquetStream:
    """Opens parquet files after checking that each is whole."""
    schemas = [_schema(file) for file in files]
    if streaming:
        return ParquetStream(files, _image_column(Features.from_arrow_schema(schemas[0]), image_column, str(files[0])))
    paths = [str(file) for file in files]
    table = load_dataset("parquet", data_files=paths, split="train", cache_dir=_text(cache_dir))
    return TableRows(*_undecoded(table, image_column, str(files[0])))


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise BadDataError(f"{file} is truncated or no parquet file ({error}). Fetch it again.") from error


def open_saved(path: Path, split: str, image_column: str) -> TableRows:
    """Opens a folder written by `save_to_disk`."""
    table = load_from_disk(str(path))
    if isinstance(table, DatasetDict):
        if split not in table:
            raise BadDataError(f"{path} has no split {split!r}; it has {sorted(table)}.")
        table = table[split]
    return TableRows(*_undecoded(table, image_column, str(path)))


def open_hub(
    dataset: str,
    name: str | None,
    split: str,
    streaming: bool,
    image_column: str,
    cache_dir: str | os.PathLike | None,
) -> TableRows | TableStream:
    """Opens a dataset of the Hub; `datasets` says what is wrong if it cannot."""
    table = load_dataset(dataset, name=name, split=split, streaming=streaming, cache_dir=_text(cache_dir))
    undecoded, column = _undecoded(table, image_column, dataset)
    return TableStream(undecoded, column) if streaming else TableRows(undecoded, column)


def _text(path: str | os.PathLike | None) -> str | None:
    return None if path is None else str(path)


def _undecoded(table: Any, image_column: str, dataset: str) -> tuple[Any, str]:
    """The table with its picture column undecoded, and the name of that column."""
    features = table.features
    if features is None:  # a stream that does not know its columns before the first row
        table = table._resolve_features()
        features = table.features
    column = _image_column(features, image_column, dataset)
    if isinstance(features[column], Image):
        table = table.cast_column(column, Image(decode=False))
    return table, column


def _image_column(features: Features, image_column: str, dataset: str) -> str:
    """The picture column: as given, the one of type `Image`, or one with a usual name."""
    if image_column != "auto":
        if image_column not in features:
            raise BadDataError(f"{dataset} has no column {image_column!r}; it has {sorted(features)}.")
        return image_column
    typed = [name for name, feature in features.items() if isinstance(feature, Image)]
    found = typed or [name for name in IMAGE_COLUMNS if name in features]
    if not found:
        raise BadDataError(f"{dataset} has no picture column among {sorted(features)}: name it with image_column.")
    return found[0]
