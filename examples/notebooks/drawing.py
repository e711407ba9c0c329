"""What the notebooks show pictures and curves with: Pillow alone."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from mosaics.training import image_grid

INK, FAINT = (40, 40, 40), (205, 205, 205)
COLOURS = ((94, 53, 177), (0, 137, 123), (230, 81, 0), (30, 136, 229), (194, 24, 91), (97, 97, 97))
OVERSAMPLING = 2  # curves are drawn twice as large and averaged down, which smooths their edges


def tiles(images: torch.Tensor, columns: int | None = None, enlarge: int = 2) -> Image.Image:
    """Pictures `(N, C, H, W)` in [0, 1] in rows, every pixel `enlarge` pixels wide."""
    large = images.detach().repeat_interleave(enlarge, dim=2).repeat_interleave(enlarge, dim=3)
    return image_grid(large, columns)


def labelled_rows(rows: Mapping[str, torch.Tensor], enlarge: int = 2) -> Image.Image:
    """A row of pictures `(N, C, H, W)` for each label, the label above it."""
    font = ImageFont.load_default(size=13)
    strips = [tiles(images, len(images), enlarge) for images in rows.values()]
    width = max(strip.width for strip in strips)
    canvas = Image.new("RGB", (width, sum(strip.height + 18 for strip in strips)), "white")
    draw, top = ImageDraw.Draw(canvas), 0
    for label, strip in zip(rows, strips, strict=True):
        draw.text((3, top + 2), label, fill=INK, font=font)
        canvas.paste(strip, (0, top + 18))
        top += strip.height + 18
    return canvas


def curves(
    series: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    x_label: str = "step",
    size: tuple[int, int] = (560, 240),
) -> Image.Image:
    """Lines in one frame: for each name the values y, or (x, y)."""
    lines = {name: line if isinstance(line, tuple) else (range(len(line)), line) for name, line in series.items()}
    all_x, all_y = ([float(v) for line in lines.values() for v in line[axis]] for axis in (0, 1))
    (left, right), (low, high) = (min(all_x), max(all_x)), (min(all_y), max(all_y))
    width, height = (side * OVERSAMPLING for side in size)
    font = ImageFont.load_default(size=13 * OVERSAMPLING)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    box = (56 * OVERSAMPLING, 30 * OVERSAMPLING, width - 14 * OVERSAMPLING, height - 26 * OVERSAMPLING)
    draw.rectangle(box, outline=FAINT, width=OVERSAMPLING)
    corners = ((left, box[0], "la"), (right, box[2], "ra"))
    for value, x, anchor in corners:
        draw.text((x, box[3] + 4 * OVERSAMPLING), f"{value:.4g}", fill=INK, font=font, anchor=anchor)
    draw.text(((box[0] + box[2]) / 2, box[3] + 4 * OVERSAMPLING), x_label, fill=INK, font=font, anchor="ma")
    for value, y, anchor in ((low, box[3], "rs"), (high, box[1], "rt")):
        shown = 0.0 if abs(value) < 1e-4 * (high - low) else value
        draw.text((box[0] - 5 * OVERSAMPLING, y), f"{shown:.3g}", fill=INK, font=font, anchor=anchor)
    name_left = box[0]
    for (name, (xs, ys)), colour in zip(lines.items(), COLOURS, strict=False):
        across = [box[0] + (float(x) - left) / ((right - left) or 1) * (box[2] - box[0]) for x in xs]
        up = [box[3] - (float(y) - low) / ((high - low) or 1) * (box[3] - box[1]) for y in ys]
        draw.line(list(zip(across, up, strict=True)), fill=colour, width=2 * OVERSAMPLING, joint="curve")
        draw.text((name_left, 6 * OVERSAMPLING), name, fill=colour, font=font)
        name_left += font.getlength(name) + 18 * OVERSAMPLING
    return canvas.resize(size, Image.Resampling.LANCZOS)
