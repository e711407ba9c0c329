#!/usr/bin/env python
"""Runs the notebooks and keeps what they show: python examples/notebooks/run.py [1_vqvae 2_priors ...].

The outputs are written into the notebooks, and the pictures of cells that are named in their metadata (`"figure"`)
into `docs/pages/images/course`. Needs nothing but what the notebooks need; Jupyter runs them too.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image

FOLDER = Path(__file__).parent
FIGURES = FOLDER.parents[1] / "docs" / "pages" / "images" / "course"


def run_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """Runs the code cells in order, puts their outputs into `notebook`, and returns the variables they leave.

    The notebooks' own folder has to be the working directory and on `sys.path`, as it is in Jupyter.
    """
    variables: dict[str, Any] = {"__name__": "__main__"}
    code_cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code_cells, start=1):
        name = f"<cell {number}>"
        tree = ast.parse("".join(cell["source"]), name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, name, "exec"), variables)
            shown = None if last is None else eval(compile(ast.Expression(last.value), name, "eval"), variables)
        cell["execution_count"] = number
        cell["outputs"] = outputs_of(printed.getvalue(), shown, number)
    return variables


def outputs_of(printed: str, shown: Any, number: int) -> list[dict[str, Any]]:
    """What a cell printed and the value of its last line, as the notebook format writes them."""
    outputs: list[dict[str, Any]] = []
    if printed:
        outputs.append({"name": "stdout", "output_type": "stream", "text": printed.splitlines(keepends=True)})
    if shown is None:
        return outputs
    data: dict[str, Any] = {"text/plain": repr(shown).splitlines(keepends=True)}
    if isinstance(shown, Image.Image):
        data = {"image/png": base64.b64encode(to_png(shown)).decode(), "text/plain": ["a picture"]}
    return [*outputs, {"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"}]


def to_png(picture: Image.Image) -> bytes:
    """A small file: at most 256 colours, the ones that suit the picture."""
    file = io.BytesIO()
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def figures_of(notebook: dict[str, Any]) -> dict[str, bytes]:
    """The PNG files of the cells that have a name in their metadata."""
    return {
        cell["metadata"]["figure"]: base64.b64decode(cell["outputs"][-1]["data"]["image/png"])
        for cell in notebook["cells"]
        if "figure" in cell["metadata"]
    }


def main() -> None:
    if "MOSAICS_FAST" in os.environ:
        sys.exit("run.py: error: MOSAICS_FAST is for tests; unset it to keep outputs that are worth looking at.")
    known = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    names = sys.argv[1:] or known
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"run.py: error: no notebook {', '.join(unknown)}; there are {', '.join(known)}.")
    os.chdir(FOLDER)
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        notebook = json.loads(path.read_text())
        run_notebook(notebook)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        FIGURES.mkdir(parents=True, exist_ok=True)
        for figure, picture in figures_of(notebook).items():
            (FIGURES / f"{figure}.png").write_bytes(picture)
        print(f"{path}: run, {path.stat().st_size / 1000:.0f} kB.")


if __name__ == "__main__":
    main()
