"""From artwork to pictures of one size: vector drawings and rasters become square RGBA WebP files."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def render_icon(icon: Mapping, defaults: Mapping, size: int) -> Image.Image:
    """Renders an icon of an iconify package at twice the size.

    Args:
        icon: Its entry: `body` and, where they differ from the package's, `left`, `top`, `width`, `height`.
        defaults: The package, for what the icon lacks.
        size: Side of the final picture in pixels.

    Raises:
        RuntimeError: If the renderer is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise RuntimeError("Rendering needs the package resvg-py: `pip install resvg-py` (0.5.0 was used).") from error
    left, top, width, height = (
        icon.get(key, defaults.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    box = f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}"'
    svg = f"<svg {_NAMESPACES} {box}>{icon['body']}</svg>"
    data = resvg_py.svg_to_bytes(svg_string=svg, width=2 * size, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


def square_webp(image: Image.Image, size: int) -> bytes | None:
    """Centres a picture on a transparent square, resizes it and packs it as a lossless WebP.

    Colours are resized premultiplied by alpha, so that no edge takes on the colour of what is transparent.

    Args:
        image: An RGBA picture of any shape.
        size: Side of the result in pixels.

    Returns:
        The bytes of the file, or `None` if nothing of the picture is visible.
    """
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    pixels = np.asarray(square, np.float32) / 255
    planes = [pixels[..., channel] * pixels[..., 3] for channel in range(3)] + [pixels[..., 3]]
    if side != size:
        box = side % size == 0
        kind = Image.Resampling.BOX if box else Image.Resampling.LANCZOS
        planes = [np.asarray(Image.fromarray(plane).resize((size, size), kind)) for plane in planes]
    alpha = planes[3].clip(0, 1)
    if not alpha.max() * 255 >= 0.5:
        return None
    colours = np.stack(planes[:3], axis=-1) / np.maximum(alpha, 1e-3)[..., None]
    rgba = np.dstack([colours.clip(0, 1), alpha])
    buffer = io.BytesIO()
    Image.fromarray(np.rint(rgba * 255).astype(np.uint8)).save(buffer, "WEBP", lossless=True, quality=80)
    return buffer.getvalue()
