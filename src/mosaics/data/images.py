"""The one way to read a picture: whatever holds it, out comes upright 8-bit RGB, or an error that names it."""

import io
import os
import warnings
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

ImageSource = str | os.PathLike | bytes | Image.Image | np.ndarray | torch.Tensor | dict


class ImageError(ValueError):
    """A picture that cannot be used; the message names it and says why."""


def read_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads a picture as upright 8-bit RGB.

    Transparent parts are composited on white, EXIF rotation is applied once, 16-bit gray is scaled to 8 bits, CMYK and
    palettes are converted, and of an animation the first frame is taken. A file is decoded completely, so a truncated
    one is found; a JPEG with flipped bits may still decode, as garbage.

    Args:
        source: Path of a file; its bytes; a `PIL.Image`; a numpy array `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or
            `(H, W, 4)` (uint8, uint16, or float in [0, 1]); a float tensor `(3, H, W)` or `(1, 3, H, W)` in [0, 1];
            or an undecoded row of `datasets`, `{"bytes": ..., "path": ...}`.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        ImageError: If there is no usable picture. The message names the file, and what to do.
    """
    name = _name_of(source)
    content: Any = (source.get("bytes") or source.get("path")) if isinstance(source, dict) else source
    if isinstance(content, Image.Image):
        return _to_rgb(_loaded(content, name, max_pixels), name)
    if isinstance(content, torch.Tensor):
        content = _tensor_to_array(content, name)
    if isinstance(content, np.ndarray):
        return _to_rgb(_array_to_image(content, name, max_pixels), name)
    if isinstance(content, (bytes, bytearray, memoryview)):
        with io.BytesIO(content) as file:
            return _to_rgb(_opened(file, len(content), name, max_pixels), name)
    if isinstance(content, (str, os.PathLike)):
        if "://" in str(content):
            raise ImageError(f"{name} is an address, not a file: download the picture and give its path.")
        if not os.path.isfile(content):
            raise ImageError(f"There is no picture file at {name}.")
        with open(content, "rb") as file:
            return _to_rgb(_opened(file, os.path.getsize(content), name, max_pixels), name)
    raise ImageError(
        f"A picture must be a path, bytes, a PIL image, a numpy array or a float tensor, got {type(content).__name__}."
    )


def to_pixel_values(image: ImageSource, image_size: int) -> torch.Tensor:
    """Cuts the central square of a picture, resizes it and gives it as float `(3, image_size, image_size)` in [0, 1].

    Args:
        image: Anything [`read_image`] takes.
        image_size: Side of the result in pixels. The square is resized with a Lanczos filter, which averages when it
            shrinks.
    """
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1:
        raise ValueError(f"image_size must be a positive integer, got {image_size!r}.")
    image = read_image(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if side != image_size:
        image = image.resize((image_size, image_size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return pixels.to(torch.float32).div_(255).contiguous()


def _name_of(source: Any) -> str:
    """What to call a source in a message."""
    if isinstance(source, dict):
        path, data = source.get("path"), source.get("bytes")
        return str(path) if path else _name_of(data)
    if isinstance(source, (str, os.PathLike)):
        return repr(str(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes of picture data"
    filename = getattr(source, "filename", "")
    return repr(str(filename)) if filename else f"the given {type(source).__name__}"


def _opened(file: BinaryIO, num_bytes: int, name: str, max_pixels: int) -> Image.Image:
    """Opens and decodes a file; whatever goes wrong inside Pillow is reported with the name."""
    if not num_bytes:
        raise ImageError(f"{name} is empty (0 bytes): fetch it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decompression bombs are refused by size just below
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is refused before decoding: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is no picture of a known format ({', '.join(FORMATS)}), or its start is damaged."
        ) from error
    except Exception as error:
        raise ImageError(f"{name} cannot be opened as a picture: {error}") from error
    return _loaded(image, name, max_pixels)


def _loaded(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """Checks the size before anything is decoded, decodes all of it, and turns it upright."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{name} has {width} x {height} pixels, above the limit of {max_pixels:,}: shrink it first.")
    if width < 1 or height < 1:
        raise ImageError(f"{name} has {width} x {height} pixels.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF or unused chunks do not spoil the pixels
            image.load()
    except Exception as error:
        raise ImageError(f"{name} is truncated or damaged: {error}. Fetch it again, or remove it.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF: Pillow raises anything up to ZeroDivisionError; the picture itself is whole
        return image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Converts every mode to RGB without clipping a deep one and without showing hidden colours."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        deep = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.rint(deep.clip(0, 65535) / 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "I" or not _is_unit_range(values):
            raise ImageError(
                f"{name} has {image.mode!r} pixels of unknown range: save it with 8 or 16 bits, or floats in [0, 1]."
            )
        image = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"{name} has mode {image.mode!r}, which has no conversion to RGB: {error}") from error


def _is_unit_range(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all()) and values.min() >= 0 and values.max() <= 1


def _array_to_image(array: np.ndarray, name: str, max_pixels: int) -> Image.Image:
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))) or 0 in shape:
        raise ImageError(
            f"{name} has shape {shape}; expected (height, width) or (height, width, channels) with 1, 3 or 4 channels."
        )
    if shape[0] * shape[1] > max_pixels:
        raise ImageError(
            f"{name} has {shape[1]} x {shape[0]} pixels, above the limit of {max_pixels:,}: shrink it first."
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = np.rint(array.astype(np.float64) / 257).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not _is_unit_range(array):
            raise ImageError(f"{name} holds floats outside [0, 1] or not finite: scale it to [0, 1], or give uint8.")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"{name} has dtype {array.dtype}; expected uint8, uint16, or float in [0, 1].")
    return Image.fromarray(np.ascontiguousarray(array))


def _tensor_to_array(tensor: torch.Tensor, name: str) -> np.ndarray:
    shape = tuple(tensor.shape)
    if tensor.ndim == 4 and shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3) or not tensor.is_floating_point():
        raise ImageError(
            f"{name} has shape {shape} and dtype {tensor.dtype}; expected a float tensor (3, height, width) in [0, 1]."
        )
    return tensor.detach().to("cpu", torch.float32).permute(1, 2, 0).numpy()
