"""The data that the arguments of a training script name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

from torch.utils.data import Dataset, Subset

from mosaics.data.benchmark_sets import BENCHMARK_SETS, LabelledPictures
from mosaics.data.captioned_images import CaptionedImages, load_captioned_images

Composer = Callable[..., Dataset]
NO_COMPOSERS: Mapping[str, Composer] = MappingProxyType({})


def load_train_data(
    dataset: str,
    image_size: int,
    options: Mapping[str, Any] | None = None,
    composers: Mapping[str, Composer] = NO_COMPOSERS,
    *,
    split: str = "train",
) -> Any:
    """The samples to train on, or those of another split.

    Args:
        dataset: A name in `composers`; `"mnist"`, `"fashion-mnist"` or `"cifar10"`, with the option `source` and the
            set's own size and channels ([`LabelledPictures`]); or what [`load_captioned_images`] takes.
        image_size: Side of the square pictures in pixels.
        options: More arguments of the composer or of `load_captioned_images`.
        composers: Data sets that are composed by code, by name: called as `composer(split, size=..., **options)`.
        split: Which part of the data set.
    """
    options = dict(options or {})
    if dataset in composers:
        return composers[dataset](split, size=image_size, **options)
    if dataset in BENCHMARK_SETS:
        return _benchmark_set(dataset, split, image_size, options)
    options.setdefault("split", split)
    return load_captioned_images(dataset, image_size, **options)


def load_eval_data(
    dataset: str,
    image_size: int,
    options: Mapping[str, Any] | None = None,
    composers: Mapping[str, Composer] = NO_COMPOSERS,
    *,
    split: str | None,
    num_samples: int,
) -> Dataset | None:
    """At most `num_samples` held-out samples: of `split`, by default `"test"` for named data sets and else none.

    Args:
        dataset: As for [`load_train_data`].
        image_size: As for [`load_train_data`].
        options: As for [`load_train_data`]; a stream is read as a table here.
        composers: As for [`load_train_data`].
        split: Its name; `None` for `"test"`, or for no evaluation where the data set is not a named one.
        num_samples: How many samples.
    """
    options = dict(options or {})
    if dataset in composers:
        return composers[dataset](split or "test", size=image_size, **{**options, "length": num_samples})
    if dataset in BENCHMARK_SETS:
        return _benchmark_set(dataset, split or "test", image_size, {**options, "length": num_samples})
    if split is None:
        return None
    options.update(split=split, streaming=False)
    data = cast("CaptionedImages", load_captioned_images(dataset, image_size, **options))  # as it is not a stream
    return Subset(data, range(min(num_samples, len(data))))


def _benchmark_set(name: str, split: str, image_size: int, options: dict[str, Any]) -> LabelledPictures:
    if "source" not in options:
        raise ValueError(
            f'dataset={name} needs dataset_options={{"source": ...}}, the archive or its folder: '
            f"`{BENCHMARK_SETS[name].command}` fetches it."
        )
    data = LabelledPictures(name, split, **options)
    if data.images.shape[-1] != image_size:
        raise ValueError(f"The pictures of {name} have a side of {data.images.shape[-1]}, image_size is {image_size}.")
    return data
