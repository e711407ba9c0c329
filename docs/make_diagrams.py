#!/usr/bin/env python
"""Draws the diagrams of the documentation as SVG: python docs/make_diagrams.py.

The diagram of the package is read from the imports in `src/mosaics`. No diagram needs a script or a font to be shown.
"""

import ast
from collections.abc import Iterable
from html import escape
from itertools import pairwise, zip_longest
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mosaics"
DIAGRAMS = ROOT / "docs" / "pages" / "images" / "diagrams"
EVERYWHERE = {"__init__", "lazy_imports", "registration"}  # what only makes names and Auto classes known
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #222; text-anchor: middle; dominant-baseline: central }
.small { font-size: 12px; fill: #666 }
rect { fill: #ede7f6; stroke: #7e57c2; stroke-width: 1.2 }
path { fill: none; stroke: #555; stroke-width: 1.4 }
.dashed { stroke-dasharray: 5 4; stroke: #c2185b }
marker path { fill: #555; stroke: none } #back path { fill: #c2185b }
@media (prefers-color-scheme: dark) {
  text { fill: #eee } .small { fill: #aaa } rect { fill: #2d2640; stroke: #9575cd }
  path { stroke: #aaa } .dashed { stroke: #f06292 } marker path { fill: #aaa } #back path { fill: #f06292 }
}
"""


class Diagram:
    """Boxes on a grid of cells and straight arrows between them.

    Args:
        cell: Width and height of a cell in pixels.
        box: Width and height of a box.
    """

    def __init__(self, cell: tuple[int, int] = (160, 90), box: tuple[int, int] = (132, 46)):
        self.cell, self.size = cell, box
        self.centres: dict[str, tuple[float, float]] = {}
        self.widths: dict[str, float] = {}
        self.arrows: list[str] = []  # drawn first: a long one passes behind the boxes
        self.shapes: list[str] = []

    def box(self, name: str, column: float, row: float, lines: str = "", wide: float = 1) -> None:
        """A box named `name` in a cell (fractions lie between cells), with a smaller text below its name."""
        x, y = (column + 0.5) * self.cell[0], (row + 0.5) * self.cell[1]
        width, height = self.size[0] * wide, self.size[1]
        self.centres[name], self.widths[name] = (x, y), width
        self.shapes.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height}" rx="6"/>'
        )
        self._text(x, y - 8 if lines else y, name)
        if lines:
            self._text(x, y + 11, lines, "small")

    def note(self, text: str, column: float, row: float) -> None:
        """Small text without a box."""
        self._text((column + 0.5) * self.cell[0], (row + 0.5) * self.cell[1], text, "small")

    def arrow(self, start: str, end: str, label: str = "", dashed: bool = False, shift: float = 0) -> None:
        """An arrow from border to border; `shift` moves it to the side, so that two can run beside each other."""
        (x1, y1), (x2, y2) = self.centres[start], self.centres[end]
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        aside_x, aside_y = -(y2 - y1) / length * shift, (x2 - x1) / length * shift
        first, last = self._to_border(start, (x2, y2)), self._to_border(end, (x1, y1))
        points = [(x + aside_x, y + aside_y) for x, y in (first, last)]
        kind, marker = (' class="dashed"', "back") if dashed else ("", "head")
        path = " L ".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.arrows.append(f'<path{kind} d="M {path}" marker-end="url(#{marker})"/>')
        if label:
            (ax, ay), (bx, by) = points
            flat = abs(by - ay) < 1
            self._text(
                (ax + bx) / 2 + (0 if flat else 8 + 3 * len(label)),
                (ay + by) / 2 - (11 if flat else 0),
                label,
                "small",
            )

    def _to_border(self, name: str, towards: tuple[float, float]) -> tuple[float, float]:
        (x, y), (tx, ty) = self.centres[name], towards
        half_width, half_height = self.widths[name] / 2 + 3, self.size[1] / 2 + 3
        dx, dy = tx - x, ty - y
        scale = min(half_width / abs(dx) if dx else 1e9, half_height / abs(dy) if dy else 1e9)
        return x + dx * scale, y + dy * scale

    def _text(self, x: float, y: float, text: str, kind: str = "") -> None:
        attribute = f' class="{kind}"' if kind else ""
        self.shapes.append(f'<text x="{x:g}" y="{y:g}"{attribute}>{escape(text)}</text>')

    def svg(self, columns: float, rows: float) -> str:
        """The whole drawing."""
        width, height = columns * self.cell[0], rows * self.cell[1]
        heads = "".join(
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z"/></marker>'
            for name in ("head", "back")
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}"><style>{STYLE}</style><defs>{heads}</defs>\n'
            + "\n".join(self.arrows + self.shapes)
            + "\n</svg>\n"
        )


def imports_of_parts() -> dict[str, set[str]]:
    """For each part of the package the other parts it imports, read from the source."""
    parts: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if part in EVERYWHERE:
            continue
        found = parts.setdefault(part, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mosaics."):
                found.add(node.module.split(".")[1])
            elif isinstance(node, ast.ImportFrom) and node.module == "mosaics":
                found |= {alias.name for alias in node.names}
    return {part: {name for name in found - EVERYWHERE - {part} if name in parts} for part, found in parts.items()}


def without_shortcuts(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows less those that follow from two or more others."""

    def below(part: str) -> set[str]:
        return set().union(*({name} | below(name) for name in arrows[part])) if arrows[part] else set()

    return {part: {name for name in ends if not any(name in below(o) for o in ends)} for part, ends in arrows.items()}


def draw_package() -> str:
    """The parts of the package, each below all that import it."""
    arrows = without_shortcuts(imports_of_parts())
    importers = {part: [other for other, ends in arrows.items() if part in ends] for part in arrows}

    def depth(part: str) -> int:
        return 1 + max((depth(other) for other in importers[part]), default=-1)

    depths = {part: depth(part) for part in arrows}
    rows = [[part for part in sorted(arrows) if depths[part] == row] for row in range(max(depths.values()) + 1)]
    columns = max(len(row) for row in rows)
    diagram, place = Diagram(cell=(150, 96), box=(118, 40)), {}
    for number, row in enumerate(rows):
        # Below the middle of what imports it, as far as that is possible.
        row.sort(key=lambda part: sum(place[other] for other in importers[part]) / max(len(importers[part]), 1))
        for position, part in enumerate(row):
            place[part] = (columns - len(row)) / 2 + position
            diagram.box(part, place[part], number)
    for part, ends in arrows.items():
        for end in sorted(ends):
            diagram.arrow(part, end)
    return diagram.svg(columns, len(rows))


def chain(diagram: Diagram, names: Iterable[str], labels: Iterable[str] = ()) -> None:
    """Arrows from each box to the next."""
    for (start, end), label in zip_longest(pairwise(names), labels, fillvalue=""):
        diagram.arrow(start, end, label)


def draw_vqvae() -> str:
    """Encoder, nearest code, decoder; the gradient goes past the lookup."""
    diagram = Diagram(cell=(190, 96), box=(136, 50))
    diagram.box("x", 0, 0, "(B, C, H, W)")
    diagram.box("Encoder", 1, 0, "strided convolutions")
    diagram.box("nearest code", 2, 0, "VectorQuantizer")
    diagram.box("Decoder", 3, 0, "p(x | z)")
    diagram.box("codebook", 2, 1, "(K, D)")
    diagram.box("indices", 3, 1, "(B, h, w)")
    chain(diagram, ("x", "Encoder", "nearest code", "Decoder"), ("", "z_e", "z_q"))
    diagram.arrow("codebook", "nearest code")
    diagram.arrow("nearest code", "indices")
    diagram.arrow("Decoder", "nearest code", dashed=True, shift=-12)
    diagram.arrow("nearest code", "Encoder", dashed=True, shift=-12)
    diagram.note("dashed: the gradient, which is", 1, 0.7)
    diagram.note("copied past the lookup", 1, 0.9)
    return diagram.svg(4, 2)


def draw_vqvae2() -> str:
    """Two levels: features up, codes down."""
    diagram = Diagram(cell=(176, 100), box=(136, 50))
    diagram.box("E top", 1, 0)
    diagram.box("quantize top", 2, 0, "z_top (B, h, w)")
    diagram.box("D top", 3, 0)
    diagram.box("x", 0, 1)
    diagram.box("E bottom", 1, 1)
    diagram.box("quantize bottom", 3, 1, "z_bottom (B, 2h, 2w)")
    diagram.box("D bottom", 4, 1)
    diagram.box("reconstruction", 5, 1)
    chain(
        diagram, ("x", "E bottom", "E top", "quantize top", "D top", "quantize bottom", "D bottom", "reconstruction")
    )
    diagram.arrow("E bottom", "quantize bottom", "joined with what D top gives")
    diagram.arrow("quantize top", "D bottom", "")
    return diagram.svg(6, 2)


def draw_dalle() -> str:
    """The two stages, and what is drawn from them."""
    diagram = Diagram(cell=(172, 88), box=(142, 50))
    diagram.note("Stage 1", 0, -0.36)
    diagram.box("picture", 0, 0.1)
    diagram.box("dVAE encoder", 1, 0.1, "logits of K codes")
    diagram.box("Gumbel-softmax", 2, 0.1, "temperature falls")
    diagram.box("dVAE decoder", 3, 0.1, "logit-Laplace")
    chain(diagram, ("picture", "dVAE encoder", "Gumbel-softmax", "dVAE decoder"))
    diagram.note("Stage 2", 0, 0.74)
    diagram.box("caption", 0, 1.2)
    diagram.box("text tokens", 1, 1.2, "byte pairs, padded")
    diagram.box("Transformer", 2, 1.2, "p(text, codes)")
    diagram.box("codes", 3, 1.2, "the most probable")
    chain(diagram, ("caption", "text tokens", "Transformer"))
    diagram.arrow("codes", "Transformer")
    diagram.arrow("dVAE encoder", "codes")
    diagram.note("Generation", 0, 1.84)
    diagram.box("sentence", 0, 2.3)
    diagram.box("N grids of codes", 1, 2.3, "code after code")
    diagram.box("N pictures", 2, 2.3, "dVAE decoder")
    diagram.box("the best", 3, 2.3, "ranked by CLIP")
    chain(diagram, ("sentence", "N grids of codes", "N pictures", "the best"))
    return diagram.svg(4, 3.2)


def draw_training() -> str:
    """One step of a training run, and what a checkpoint holds."""
    diagram = Diagram(cell=(184, 92), box=(152, 50))
    diagram.box("data order", 0, 0, "f(seed, epoch, step)")
    diagram.box("your loop", 1, 0, "model, loss, schedules")
    diagram.box("run.optimize", 2, 0, "all values finite?")
    diagram.box("weights, averages", 3, 0, "optimizer and EMA")
    diagram.box("checkpoint-N", 3, 1, "whole or absent")
    diagram.box("resume", 2, 1, "verified, bit for bit")
    diagram.box("output_dir", 4, 1, "from_pretrained loads it")
    chain(diagram, ("data order", "your loop", "run.optimize", "weights, averages", "checkpoint-N", "resume"))
    diagram.arrow("resume", "your loop")
    diagram.arrow("weights, averages", "output_dir")
    return diagram.svg(5, 2)


DIAGRAM_OF = {
    "package": draw_package,
    "vqvae": draw_vqvae,
    "vqvae2": draw_vqvae2,
    "dalle": draw_dalle,
    "training": draw_training,
}

if __name__ == "__main__":
    DIAGRAMS.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAM_OF.items():
        (DIAGRAMS / f"{name}.svg").write_text(draw())
        print(DIAGRAMS / f"{name}.svg")
