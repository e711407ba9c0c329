"""What a folder of safetensors weights must look like before a model is built from it.

`PreTrainedModel.from_pretrained` fills missing keys with random numbers, ignores extra ones, and names no file when
one is damaged. The functions here read headers only (no tensor data), so a folder is judged before it is loaded.
"""

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

MAX_HEADER_BYTES = 16 * 2**20  # a header entry takes about 150 bytes: room for 100,000 tensors
MAX_HEADER_ENTRIES = 100_000
MAX_INDEX_BYTES = 32 * 2**20
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

DOWNLOAD_AGAIN = "Download or copy the file again."


class WeightsError(ValueError, OSError):
    """Weights on disk that do not belong to the model, or are damaged: the message names the file and the key."""


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of a model folder: one file, or the shards its index lists.

    Args:
        folder: Folder that holds `model.safetensors` or `model.safetensors.index.json`.
        variant: Middle of the name, as in `model.fp16.safetensors`.

    Raises:
        WeightsError: No safetensors file, only pickles, an index that is damaged, that names a file outside the
            folder, or that names one that is not there.
    """
    middle = f".{variant}" if variant else ""
    single, index = folder / f"model{middle}.safetensors", folder / f"model.safetensors.index{middle}.json"
    if single.is_file():
        return [single]
    if index.is_file():
        return _shards(index)
    if single.exists() or index.exists():
        raise WeightsError(f"{single if single.exists() else index} is not a regular file, so it is not read.")
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise WeightsError(
            f"{folder} holds its weights only as pickle ({', '.join(pickles[:5])}), which can run code when read. "
            "Mosaics reads safetensors only: convert the file first (`mosaics convert`)."
        )
    raise WeightsError(f"{folder} has no {single.name}. It holds: {_listing(folder)}.")


def _shards(index: Path) -> list[Path]:
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise WeightsError(
            f"{index} is {index.stat().st_size} bytes, larger than any shard index ({MAX_INDEX_BYTES})."
        )
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is not a shard index with a 'weight_map' of strings: {error!r}.") from error
    shards = []
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[\\/\0]", name):
            raise WeightsError(f"{index} names the shard {name!r}. A shard must be a file name inside {index.parent}.")
        path = index.parent / name
        if not path.is_file():
            state = "is not a regular file" if path.exists() else "is missing"
            raise WeightsError(f"{path}, a shard that {index.name} lists, {state}. {DOWNLOAD_AGAIN}")
        shards.append(path)
    return shards


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of one safetensors file, after checking that its header and its size agree.

    Raises:
        WeightsError: The file is empty, a Git LFS pointer, a web page, truncated, padded, or not safetensors.
    """
    size = path.stat().st_size
    _refuse_changed_download(path)
    with path.open("rb") as file:
        start = file.read(64)
        _refuse_other_formats(path, start, size)
        (length,) = struct.unpack("<Q", start[:8])
        if length > MAX_HEADER_BYTES:
            raise WeightsError(
                f"{path} is not a usable safetensors file: it claims a header of {length:,} bytes; "
                f"at most {MAX_HEADER_BYTES:,} are read. {DOWNLOAD_AGAIN}"
            )
        if 8 + length > size:
            raise WeightsError(
                f"{path} is truncated: its header needs {8 + length:,} bytes, the file has {size:,}. {DOWNLOAD_AGAIN}"
            )
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {key: (entry["dtype"], entry["shape"], entry["data_offsets"]) for key, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} has a damaged safetensors header ({error!r}). {DOWNLOAD_AGAIN}") from error
    _check_layout(path, entries, data_size=size - 8 - length)
    return {key: tuple(shape) for key, (_, shape, _) in entries.items()}


def _refuse_changed_download(path: Path) -> None:
    """Checks a file of the Hub's cache against its hash, which is the name of the blob that the link points to.

    huggingface_hub checks sizes only: damage in transfer or on disk would go unseen.
    """
    blob = path.resolve()
    if not path.is_symlink() or blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{64}", blob.name):
        return
    with blob.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != blob.name:
        raise WeightsError(
            f"{path} was damaged in transfer or in the cache: its sha256 is {digest}, the Hub's is {blob.name}. "
            "Load again with `force_download=True`."
        )


def _refuse_other_formats(path: Path, start: bytes, size: int) -> None:
    if size == 0:
        raise WeightsError(f"{path} is empty (0 bytes). {DOWNLOAD_AGAIN}")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` in its repository.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(f"{path} is a web page, not weights: a download saved an error page. {DOWNLOAD_AGAIN}")
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        raise WeightsError(f"{path} is a PyTorch pickle under another name. Convert it first (`mosaics convert`).")
    if size < 8:
        raise WeightsError(f"{path} has {size} bytes, too few for a safetensors file. {DOWNLOAD_AGAIN}")


def _check_layout(path: Path, entries: Mapping[str, tuple], data_size: int) -> None:
    """Every tensor has the bytes its shape needs, and together they cover the data exactly."""
    if len(entries) > MAX_HEADER_ENTRIES:
        raise WeightsError(f"{path} lists {len(entries):,} tensors; Mosaics reads at most {MAX_HEADER_ENTRIES:,}.")
    end = 0
    try:
        for key, (dtype, shape, (first, last)) in sorted(entries.items(), key=lambda item: tuple(item[1][2])):
            if dtype not in BITS:
                raise WeightsError(f"{path}: tensor {key!r} has the unknown dtype {dtype!r}.")
            if any(not isinstance(n, int) or n < 0 for n in shape):
                raise WeightsError(f"{path}: tensor {key!r} has the impossible shape {shape}.")
            needed = math.prod(shape) * BITS[dtype] // 8
            if first != end or last - first != needed:
                raise WeightsError(
                    f"{path}: tensor {key!r} of shape {tuple(shape)} and dtype {dtype} should take bytes {end:,} to "
                    f"{end + needed:,} of the data, its header says {first:,} to {last:,}. {DOWNLOAD_AGAIN}"
                )
            end = last
    except (TypeError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path} has a damaged safetensors header ({error!r}). {DOWNLOAD_AGAIN}") from error
    if end != data_size:
        state = "is truncated" if end > data_size else "has bytes after its last tensor"
        raise WeightsError(
            f"{path} {state}: its tensors take {end:,} bytes, the file has {data_size:,}. {DOWNLOAD_AGAIN}"
        )


def read_shapes(files: Iterable[Path]) -> dict[str, tuple[tuple[int, ...], Path]]:
    """Shape and file of every tensor in a set of shards; a key in two shards is an error."""
    found: dict[str, tuple[tuple[int, ...], Path]] = {}
    for path in files:
        for key, shape in read_header(path).items():
            if key in found:
                raise WeightsError(f"tensor {key!r} is in both {found[key][1]} and {path}.")
            found[key] = (shape, path)
    return found


def compare_with_model(
    found: Mapping[str, tuple[tuple[int, ...], Path]],
    model: torch.nn.Module,
    source: str,
    strict: bool = True,
) -> None:
    """Refuses keys that are missing, left over or of another shape than the model's.

    Args:
        found: What [`read_shapes`] returned.
        model: The model that is going to take the weights; it may be on the `meta` device.
        source: Name of the folder or repository, for the message.
        strict: `False` lets left-over keys pass. Missing keys and other shapes are never accepted.

    Raises:
        WeightsError: Listing the keys, both shapes, and the config field a shape comes from.
    """
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    optional = set(_tied_keys(model)) | _matching(expected, getattr(model, "_keys_to_ignore_on_load_missing", None))
    ignored = _matching(found, getattr(model, "_keys_to_ignore_on_load_unexpected", None))
    missing = sorted(set(expected) - set(found) - optional)
    extra = sorted(set(found) - set(expected) - ignored)
    name = type(model).__name__
    if missing and (prefix := _common_prefix(missing, extra)) is not None:
        verb, there = ("carry", "without") if prefix.startswith("+") else ("lack", "with")
        raise WeightsError(
            f"the keys of {source} {verb} the prefix {prefix[1:]!r}: {name} expects {missing[0]!r}, {there} it."
            " Rename the keys, or convert the file (`mosaics convert`)."
        )
    if missing:
        raise WeightsError(
            f"{source} lacks {len(missing)} of the {len(expected)} tensors of {name}: {_some(missing)}"
            + (f"; it has {len(extra)} unknown ones: {_some(extra)}" if extra else "")
            + ". They would be random numbers. Use the weights of this architecture, or fix the config."
        )
    if extra and strict:
        raise WeightsError(
            f"{source} has {len(extra)} tensors that {name} does not know: {_some(extra)}. "
            "If they may be left out, pass `strict=False`."
        )
    for key, shape in sorted(expected.items()):
        if key in found and found[key][0] != shape:
            raise WeightsError(
                f"{found[key][1]}: tensor {key!r} has shape {found[key][0]}, {name} with this config expects {shape}"
                f"{_fields_behind(model, found[key][0], shape)}."
            )


def refuse_nonfinite(weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Raises [`WeightsError`] naming the first tensor that holds NaN or infinity, and how many of them."""
    for key, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta or not tensor.is_floating_point():
            continue
        # A sum is finite only if every term is, and is far cheaper than a mask; it can overflow, so the mask decides.
        if not torch.isfinite(tensor.sum(dtype=torch.float32)):
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                raise WeightsError(
                    f"{source}: tensor {key!r} has {bad} of {tensor.numel()} values that are NaN or infinite. "
                    "Use an earlier checkpoint."
                )


def _tied_keys(model: torch.nn.Module) -> Iterable[str]:
    tied = getattr(model, "all_tied_weights_keys", None) or getattr(model, "_tied_weights_keys", None) or ()
    return set(tied) | set(tied.values()) if isinstance(tied, Mapping) else tied


def _matching(keys: Iterable[str], patterns: Iterable[str] | None) -> set[str]:
    return {key for key in keys if any(re.search(pattern, key) for pattern in patterns or ())}


def _common_prefix(missing: list[str], extra: list[str]) -> str | None:
    """`"+model."` if every extra key is a missing one behind "model.", `"-model."` the other way round."""
    if not missing or len(missing) != len(extra):
        return None
    for sign, longer, shorter in (("+", extra, missing), ("-", missing, extra)):
        prefix = longer[0].removesuffix(shorter[0])
        if prefix and prefix != longer[0] and [prefix + key for key in shorter] == longer:
            return sign + prefix
    return None


def _fields_behind(model: torch.nn.Module, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Names the config fields whose value is the expected size, where the sizes differ."""
    if len(found) != len(expected):
        return ""
    config = getattr(model, "config", None)
    values = {} if config is None else {k: v for k, v in config.to_dict().items() if isinstance(v, int) and v > 1}
    hints = [
        f"{field}={there} in the config against {here} in the file"
        for here, there in zip(found, expected, strict=True)
        if here != there
        for field, value in values.items()
        if value == there
    ]
    return f" ({'; '.join(dict.fromkeys(hints))})" if hints else ""


def _some(keys: list[str], limit: int = 6) -> str:
    return ", ".join(repr(key) for key in keys[:limit]) + (
        f" and {len(keys) - limit} more" if len(keys) > limit else ""
    )


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*"))
    return ", ".join(names[:12]) or "nothing"


def check_saved_weights(model: torch.nn.Module) -> None:
    """Compares a loaded model of another library with the folder it came from, if that is known and still there.

    Its own `from_pretrained` would have filled missing weights with random numbers.
    """
    folder = Path(getattr(model, "name_or_path", "") or "/nowhere")
    if not (folder / "config.json").is_file():
        return
    variant = None
    if not any(folder.glob("model.safetensors*")):  # saved as a variant; all variants have the same keys and shapes
        variant = next((path.name.split(".")[1] for path in sorted(folder.glob("model.*.safetensors"))), None)
    compare_with_model(read_shapes(weight_files(folder, variant)), model, str(folder))
