"""Captioned pictures from anywhere, as a torch dataset: what `--dataset` of the training scripts takes."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from transformers.utils import logging

from mosaics.data.captions import CaptionError, read_caption
from mosaics.data.images import ImageError, read_image, to_pixel_values
from mosaics.data.rows import ImageFolderRows, Rows, TarRows
from mosaics.data.skipped import BadDataError, SkippedRows
from mosaics.data.tables import open_hub, open_parquet, open_saved

logger = logging.get_logger(__name__)

_STREAM_GRACE = 1000  # rows of a stream before the share of bad ones counts by itself


class SampleReader:
    """Turns a row into `{"pixel_values", "caption"}`.

    Args:
        image_size: Side of the square, in pixels.
        image_column: Name of the picture column.
        caption_column: Name of the caption column, or `"auto"`.
    """

    def __init__(self, image_size: int, image_column: str, caption_column: str) -> None:
        if not isinstance(image_size, int) or image_size < 1:
            raise ValueError(f"image_size must be a positive integer, got {image_size!r}.")
        self.image_size, self.image_column, self.caption_column = image_size, image_column, caption_column

    def __call__(self, row: Mapping[str, Any]) -> dict:
        """Reads one row; one of several captions is drawn from torch's global generator."""
        choice = int(torch.randint(2**31, ()))
        texts = {name: value for name, value in row.items() if name != self.image_column}
        caption = read_caption(texts, self.caption_column, choice)
        image = row[self.image_column]
        if image is None:
            raise ImageError("the picture is missing (null)")
        return {"pixel_values": to_pixel_values(read_image(image), self.image_size), "caption": caption}


class CaptionedImages(Dataset):
    """A map-style dataset of captioned pictures: `{"pixel_values": float (3, size, size) in [0, 1], "caption": str}`.

    A bad row is recorded and the next good one is given in its place, so the length does not depend on what is bad.
    `report` says what was found at the start; `skipped` is the record of bad rows.

    Args:
        rows: Where the rows come from.
        read: Turns a row into a sample, or raises `ImageError` or `CaptionError`.
        skipped: The record.
    """

    def __init__(self, rows: Rows, read: SampleReader, skipped: SkippedRows) -> None:
        self.rows, self.read, self.skipped = rows, read, skipped
        self.report = rows.report
        self.fingerprint = rows.fingerprint and f"{rows.fingerprint}-{read.image_size}-{read.caption_column}"
        self._bad: set[int] = set()
        _record_start(rows, skipped)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} rows.")
        for step in range(len(self)):
            number = (index + step) % len(self)
            if number in self._bad:
                continue
            try:
                return self.read(self.rows[number])
            except (ImageError, CaptionError) as error:
                self._bad.add(number)
                self.skipped.add(self.rows.name(number), str(error), self.report.rows)
        raise BadDataError(f"Every row of {self.skipped.dataset} is bad; see the record of skipped rows.")


class CaptionedImageStream(IterableDataset):
    """The same samples from front to back, shuffled by (seed, epoch); bad rows are recorded and left out.

    Args:
        rows: Rows that can be read by number, or a stream of `datasets`.
        read: Turns a row into a sample.
        skipped: The record.
        seed: Seed of the order.
        shuffle_buffer: Rows held for shuffling a stream that has no numbers; 0 keeps the order of either kind.
    """

    def __init__(
        self, rows: Any, read: SampleReader, skipped: SkippedRows, seed: int = 0, shuffle_buffer: int = 1000
    ) -> None:
        self.rows, self.read, self.skipped = rows, read, skipped
        self.seed, self.shuffle_buffer, self.epoch = seed, shuffle_buffer, 0
        self.report = rows.report
        if self.report is not None:
            _record_start(rows, skipped)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        rows = self.rows.named_rows(self.seed, self.epoch, self.shuffle_buffer)
        good = number = 0
        for number, (name, row) in enumerate(rows, start=1):
            if number % workers != mine:
                continue
            try:
                sample = self.read(row)
            except (ImageError, CaptionError) as error:
                known = self.report.rows if self.report is not None else max(number, _STREAM_GRACE)
                self.skipped.add(name, str(error), known)
                continue
            good += 1
            yield sample
        if not good and workers == 1:
            raise BadDataError(f"{self.skipped.dataset} gave no usable row ({number} read, {len(self.skipped)} bad).")


def load_captioned_images(
    dataset: str | os.PathLike,
    image_size: int,
    split: str = "train",
    streaming: bool = False,
    image_column: str = "auto",
    caption_column: str = "auto",
    max_bad: float = 0.01,
    skipped_path: str | os.PathLike | None = None,
    seed: int = 0,
    shuffle_buffer: int = 1000,
    name: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> CaptionedImages | CaptionedImageStream:
    """Loads captioned pictures: `{"pixel_values": float (3, image_size, image_size) in [0, 1], "caption": str}`.

    Args:
        dataset: A folder with `metadata.jsonl` (`file_name` and `text` in each line) beside the pictures, or with such
            a folder named like the split; a parquet file or a folder of them; a tar or a folder of tars (webdataset);
            a folder written by `Dataset.save_to_disk`; or the id of a dataset on the Hub.
        image_size: Side of the square that every picture is cropped and resized to, in pixels.
        split: Which part of the dataset.
        streaming: Read from front to back, without a copy on disk; the result is an `IterableDataset`.
        image_column: Name of the picture column of a table; `"auto"` finds it.
        caption_column: Name of the caption column; `"auto"` finds the usual ones.
        max_bad: Share of bad rows that is tolerated; they are skipped and recorded.
        skipped_path: Where they are recorded, usually `skipped.jsonl` in the output folder.
        seed: Seed of a stream's order.
        shuffle_buffer: Rows that a stream is shuffled in; 0 for its own order.
        name: Configuration of a Hub dataset that has several.
        cache_dir: Cache folder for `datasets`.

    Raises:
        FileNotFoundError: If `dataset` looks like a path and is not there.
        BadDataError: If there is no usable row, too many are bad, or a file is truncated; the message names it.
    """
    rows = _open(str(dataset), split, streaming, image_column, caption_column, name, cache_dir)
    skipped = SkippedRows(f"{dataset}[{split}]", max_bad, skipped_path)
    read = SampleReader(image_size, rows.image_column, caption_column)
    if streaming:
        return CaptionedImageStream(rows, read, skipped, seed, shuffle_buffer)
    return CaptionedImages(rows, read, skipped)


def load_captions(
    dataset: str | os.PathLike,
    split: str = "train",
    streaming: bool = False,
    image_column: str = "auto",
    caption_column: str = "auto",
    name: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Iterator[str]:
    """The captions of a dataset alone, without reading its pictures: what a tokenizer is trained on.

    The arguments are those of [`load_captioned_images`]. Rows without a usable caption are left out.
    """
    rows = _open(str(dataset), split, streaming, image_column, caption_column, name, cache_dir)
    for _, row in rows.named_rows(0, 0, 0):
        try:
            yield read_caption({key: value for key, value in row.items() if key != rows.image_column}, caption_column)
        except CaptionError as error:
            logger.info(f"{dataset}[{split}]: a row was left out: {error}")


def _record_start(rows: Rows, skipped: SkippedRows) -> None:
    """Records what is bad from the start, reports, and refuses a source without a usable row."""
    report = rows.report
    for bad in report.bad:
        skipped.add(bad.name, bad.reason, report.rows)
    if not len(rows):
        raise BadDataError(f"{skipped.dataset} has no usable row: {report}.")
    log = logger.warning if report.bad or report.unlisted or report.duplicates else logger.info
    log(f"{skipped.dataset}: {report}.")


def _open(
    dataset: str,
    split: str,
    streaming: bool,
    image_column: str,
    caption_column: str,
    name: str | None,
    cache_dir: str | os.PathLike | None,
) -> Any:
    """The source behind a name: by number where possible, a `datasets.IterableDataset` otherwise."""
    path = Path(dataset)
    if not path.exists():
        if (
            path.is_absolute()
            or dataset.startswith((".", "~"))
            or dataset.count("/") > 1
            or path.suffix in _FILE_KINDS
        ):
            raise FileNotFoundError(
                f"There is no dataset at {dataset}: give a folder, a file, or the id of a Hub dataset."
            )
        return open_hub(dataset, name, split, streaming, image_column, cache_dir)
    folder = path / split if (path / split).is_dir() else path
    if (folder / "metadata.jsonl").is_file():
        _check_local_split(dataset, split, is_folder_of_split=folder != path)
        return ImageFolderRows(folder, caption_column)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return open_saved(path, split, image_column)
    for suffix in _FILE_KINDS:
        files = [folder] if folder.suffix == suffix else sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []
        if folder != path or len(files) < 2:
            chosen = files
        else:  # files of several splits side by side, such as train-00000.parquet and test-00000.parquet
            chosen = [file for file in files if file.name.startswith(split)] or files
        if chosen:
            _check_local_split(dataset, split, folder != path or chosen != files)
            return TarRows(chosen) if suffix == ".tar" else open_parquet(chosen, streaming, image_column, cache_dir)
    raise BadDataError(
        f"{dataset} is no dataset that is known: expected metadata.jsonl beside pictures, *.parquet, *.tar, or a "
        "folder written by save_to_disk."
    )


_FILE_KINDS = (".parquet", ".tar")


def _check_local_split(dataset: str, split: str, is_folder_of_split: bool) -> None:
    """Files without splits are the training set and nothing else."""
    if split != "train" and not is_folder_of_split:
        raise BadDataError(
            f"{dataset} has no split {split!r}: put its files into a folder of that name, or use 'train'."
        )
