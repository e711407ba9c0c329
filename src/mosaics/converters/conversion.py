"""From files of another project to a folder for `from_pretrained`, checked before it appears."""

import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import mosaics
from mosaics.converters.card import card_text
from mosaics.converters.errors import ConversionError, KeyMismatchError, UnknownFormatError
from mosaics.converters.foreign_files import ForeignFile, Sources
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.key_ledger import cast
from mosaics.converters.output_folder import check_output, write_folder
from mosaics.converters.registry import FORMATS, detect_format, open_all
from mosaics.models.weights_check import WeightsError, refuse_nonfinite

PROVENANCE = "conversion.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ConversionReport:
    """What [`convert`] did.

    Attributes:
        format: Name of the format.
        output: The folder.
        models: Class of the model in each subfolder (`""` is the folder itself).
        num_tensors: Tensors moved.
        num_compared: Numbers that were read back and compared with the source, bit by bit.
        dropped: What the source held and the output does not, and why.
    """

    format: str
    output: Path
    models: dict[str, str]
    num_tensors: int
    num_compared: int
    dropped: dict[str, str]


def convert(
    source: Sources,
    output: str | os.PathLike,
    format: str | None = None,
    dtype: str | torch.dtype | None = None,
) -> ConversionReport:
    """Converts weights of another project to a folder that Mosaics loads.

    Nothing of the source is executed. The folder is written beside its final place, loaded again and compared with
    the source bit by bit, and only then renamed; it holds the models, `conversion.json` (where they come from) and a
    README.md.

    Args:
        source: File or folder, or several: what the format needs (see `FORMATS[...].sources`).
        output: Folder to be made; it may exist if it is empty.
        format: Name of the format; found by content if not given.
        dtype: Precision to write, `"float32"`, `"float16"` or `"bfloat16"`; the source's if not given.

    Returns:
        [`ConversionReport`].

    Raises:
        ConversionError: With the reason, naming the file or the key. Nothing was written.
    """
    output = Path(output)
    check_output(output)
    dtype = _read_dtype(dtype)
    if format is not None and format not in FORMATS:
        raise UnknownFormatError(f"the format {format!r} is not known; known are {', '.join(FORMATS)}.")
    files = open_all(source)
    form = detect_format(files) if format is None else FORMATS[format]
    for file in weight_files(files):
        file.refuse_classes_outside(form.inert_classes)
    conversion = form.convert(files)
    weights = [_prepare(part, dtype) for part in conversion.parts]
    compared = 0

    def write(folder: Path) -> None:
        nonlocal compared
        for part, tensors in zip(conversion.parts, weights, strict=True):
            place = folder / part.subfolder
            part.model.save_pretrained(place, state_dict=dict(tensors))  # which it empties
            compared += _compare(part, place, tensors)
        conversion.write_others(folder)
        provenance = _provenance(form, files, conversion, dtype)
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card_text(form, conversion, provenance), encoding="utf-8")

    needed = sum(tensor.numel() * tensor.element_size() for tensors in weights for tensor in tensors.values())
    write_folder(output, write, needed_bytes=needed + needed // 50 + 2**20)
    return ConversionReport(
        format=form.name,
        output=output,
        models={part.subfolder: type(part.model).__name__ for part in conversion.parts},
        num_tensors=sum(map(len, weights)),
        num_compared=compared,
        dropped=_dropped(conversion),
    )


def _read_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and name not in DTYPES:
        raise ConversionError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}.")
    return None if dtype is None else DTYPES[name]


def _prepare(part: ConvertedPart, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """The part's weights, each in memory of its own and in the floating dtype to be written, the model's too."""
    weights = part.ledger.finish(part.model)
    if dtype is None:
        dtypes = [tensor.dtype for tensor in weights.values() if tensor.is_floating_point()]
        dtype = functools.reduce(torch.promote_types, dtypes)
    part.model.to(dtype)  # pyrefly: ignore[bad-argument-type] - transformers' wrapper looks like a function
    places: set[int] = set()
    for key, tensor in weights.items():
        tensor = cast(tensor, torch.float32 if _stays_float32(part, key) else dtype).contiguous()
        weights[key] = tensor.clone() if tensor.data_ptr() in places else tensor
        places.add(tensor.data_ptr())
    try:
        refuse_nonfinite(weights, part.ledger.source)
    except WeightsError as error:
        raise KeyMismatchError(f"{error} They do not fit into {dtype}: choose another dtype.") from error
    return weights


def _stays_float32(part: ConvertedPart, key: str) -> bool:
    """Whether the model computes with a weight in float32 in any precision, as transformers decides it."""
    names = getattr(part.model, "_keep_in_fp32_modules_strict", None) or ()
    return any(re.search(rf"(^|\.){re.escape(name)}($|\.)", key) for name in names)


def _compare(part: ConvertedPart, place: Path, weights: Mapping[str, torch.Tensor]) -> int:
    """Loads a part as a user would, and compares it with the source."""
    loaded = type(part.model).from_pretrained(place).state_dict()
    return part.ledger.compare(loaded, {key: tensor.dtype for key, tensor in weights.items()})


def _dropped(conversion: Conversion) -> dict[str, str]:
    dropped = dict(conversion.left_out)
    for part in conversion.parts:
        dropped |= part.ledger.dropped
    return dropped


def _provenance(
    form: ForeignFormat, files: Sequence[ForeignFile], conversion: Conversion, dtype: torch.dtype | None
) -> dict:
    return {
        "format": form.name,
        "description": form.description,
        "project": form.project,
        "weights_license": form.weights_license,
        "mosaics_version": mosaics.__version__,
        "dtype": "as in the source" if dtype is None else str(dtype).removeprefix("torch."),
        "sources": [{"file": file.name, "sha256": file.sha256, "bytes": file.size} for file in files],
        "models": {part.subfolder or ".": type(part.model).__name__ for part in conversion.parts},
        "dropped": _dropped(conversion),
    }
