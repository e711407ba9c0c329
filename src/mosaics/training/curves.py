"""The numbers of a run as curves, in one picture."""

import importlib.util
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["draw_curves", "read_curves"]

Curve = list[tuple[float, float]]
_NOT_DRAWN = ("step", "epoch")
_COLUMNS = 3
_PANEL_INCHES = (4.2, 2.6)


def read_curves(metrics: Path) -> dict[str, dict[str, Curve]]:
    """The curves of a `metrics.jsonl`: for each quantity, `"training"` and `"held out"` as (step, value) pairs.

    Values that were not finite, which the file has as null, are left out.
    """
    curves: dict[str, dict[str, Curve]] = defaultdict(lambda: defaultdict(list))
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row: Mapping[str, Any] = json.loads(line)
        for name, value in row.items():
            if name not in _NOT_DRAWN and isinstance(value, (int, float)):
                kind = "held out" if name.startswith("eval_") else "training"
                curves[name.removeprefix("eval_")][kind].append((row["step"], value))
    return {name: dict(kinds) for name, kinds in sorted(curves.items())}


def draw_curves(metrics: Path, picture: Path) -> bool:
    """Draws a panel for each quantity of a `metrics.jsonl`, training and held-out values in one.

    Returns:
        Whether there is a picture: it takes matplotlib, and something to draw.
    """
    if importlib.util.find_spec("matplotlib") is None or not metrics.is_file():
        return False
    from matplotlib.figure import Figure

    curves = read_curves(metrics)
    if not curves:
        return False
    rows = -(-len(curves) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
    for panel, (name, kinds) in zip(panels, curves.items(), strict=False):
        for kind, curve in kinds.items():
            steps, values = zip(*curve, strict=True)
            panel.plot(steps, values, label=kind, marker="o" if kind == "held out" else None, markersize=3)
        panel.set_title(name.replace("_", " "), fontsize=10)
        panel.tick_params(labelsize=8)
        if len(kinds) > 1:
            panel.legend(fontsize=8)
    for panel in panels[len(curves) :]:
        panel.axis("off")
    temporary = picture.with_name(f".tmp-{picture.name}")
    figure.savefig(temporary, dpi=100, format="png")
    os.replace(temporary, picture)
    return True
