"""The notebooks run at small settings, what they claim holds, and the course shows what they drew."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from notebooks.run import FIGURES, figures_of, run_notebook

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LIMIT = 1_500_000  # bytes of all notebooks together, outputs included


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture
def run(monkeypatch):
    """Runs a notebook as Jupyter would, from its folder; returns it and the variables it leaves."""
    monkeypatch.setenv("MOSAICS_FAST", "1")
    monkeypatch.chdir(FOLDER)
    monkeypatch.syspath_prepend(FOLDER)
    random_state = torch.random.get_rng_state()

    def run_one(name: str) -> tuple[dict, dict]:
        notebook = read(FOLDER / f"{name}.ipynb")
        return notebook, run_notebook(notebook)

    yield run_one
    torch.random.set_rng_state(random_state)


def test_vqvae(run):
    notebook, left = run("1_vqvae")
    assert left["straight_through"]
    encoder, codebook, decoder = range(3)
    for term, moves in (
        ("reconstruction_loss", {encoder, decoder}),
        ("codebook_loss", {codebook}),
        ("commitment_loss", {encoder}),
    ):
        assert {part for part, size in enumerate(left["moved"][term]) if size > 0} == moves, term
    assert left["bits"] == 64 * math.log2(32)
    assert all(math.isfinite(value) for values in left["history"].values() for value in values)
    loss = torch.tensor(left["history"]["reconstruction_loss"])
    first, last = loss[:5].mean(), loss[-5:].mean()
    assert last < first
    check_figures(notebook)


def test_priors(run):
    notebook, left = run("2_priors")
    assert left["bits"]["uniform"] == 4
    assert left["bits"]["frequencies at each position"] < 4
    assert torch.equal(left["prior"].generate(class_labels=torch.arange(14) % 10, seed=0), left["learned"])
    assert left["drawn"].shape == (5, 3, 28, 28) or left["drawn"].shape == (5, 1, 28, 28)
    check_figures(notebook)


def test_vqvae2(run):
    notebook, left = run("3_vqvae2")
    assert left["largest_difference"] < 1e-5
    assert left["errors"].keys() == {"both own", "other top", "other bottom"}
    assert left["top"].shape == (6, 4, 4) and left["bottom"].shape == (6, 8, 8)
    assert len(left["samples"]) == 2
    check_figures(notebook)


def test_dvae(run):
    notebook, left = run("4_dvae")
    assert all(math.isclose(area, 1, abs_tol=2e-3) for area in left["areas"].values())
    assert left["largest_difference"] < 0.05
    assert left["divergences"][0] == pytest.approx(0, abs=1e-5)
    assert left["divergences"][-1] == pytest.approx(math.log(8), abs=0.01)
    sharpest = left["strip"][-1].amax(dim=1)
    assert (sharpest > left["strip"][0].amax(dim=1)).all() and sharpest.mean() > 0.95
    assert left["history"]["temperature"][0] == 1
    assert left["psnr"](left["dvae"]) > 15
    check_figures(notebook)


def test_dalle(run):
    notebook, left = run("5_dalle")
    own, other, _ = left["losses"].values()
    assert own < other
    assert left["output"].clip_scores == sorted(left["output"].clip_scores, reverse=True)
    assert left["best_so_far"][-1] == left["output"].clip_scores[0]
    assert len(left["frames"]) == 4
    known = left["rows"] * left["FACTOR"]
    redecoded = left["pipe"].dvae.decode(left["indices"])[0]
    reach = 3 * left["FACTOR"]  # of the decoder over the edge of what is given
    torch.testing.assert_close(left["completed"][0][:, : known - reach], redecoded[:, : known - reach])
    check_figures(notebook)


def check_figures(notebook: dict) -> None:
    """Every named cell shows a picture with something on it."""
    assert figures_of(notebook)
    for name, content in figures_of(notebook).items():
        assert content.startswith(b"\x89PNG"), name


def test_the_notebooks_are_kept_with_the_outputs_of_one_run_from_top_to_bottom():
    assert [path.stem for path in NOTEBOOKS] == ["1_vqvae", "2_priors", "3_vqvae2", "4_dvae", "5_dalle"]
    for path in NOTEBOOKS:
        cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), path.name
        assert "MOSAICS_FAST" in "".join(cells[0]["source"]), f"{path.name} has no fast settings"
    assert sum(path.stat().st_size for path in NOTEBOOKS) < LIMIT


def test_the_course_shows_what_the_notebooks_drew():
    drawn = {name: content for path in NOTEBOOKS for name, content in figures_of(read(path)).items()}
    kept = {path.stem: path.read_bytes() for path in FIGURES.glob("*.png")}
    assert kept.keys() == drawn.keys()
    for name, content in drawn.items():
        assert kept[name] == content, f"{name}: run examples/notebooks/run.py"


def test_drawn_digits_are_those_of_their_labels_and_the_same_each_time(monkeypatch):
    from notebooks.digits import load_digits

    pictures, labels = load_digits("train", 20)
    again, _ = load_digits("train", 20)
    other, _ = load_digits("test", 20)
    assert torch.equal(pictures, again) and not torch.equal(pictures, other)
    assert pictures.shape == (20, 1, 28, 28) and labels.tolist() == [*range(10), *range(10)]
    assert 0 <= pictures.min() and pictures.amax(dim=(1, 2, 3)).min() > 0.7


def test_curves_and_tiles_have_the_size_asked_for():
    from notebooks.drawing import curves, labelled_rows, tiles

    assert tiles(torch.rand(6, 1, 4, 4), columns=3, enlarge=2).size == (3 * 10 + 2, 2 * 10 + 2)
    picture = curves({"a": [1.0, 2.0, 1.5], "b": ([0, 2], [0.0, 3.0])}, size=(200, 120))
    assert picture.size == (200, 120) and len(picture.getcolors(100_000)) > 10
    rows = labelled_rows({"one": torch.zeros(2, 3, 8, 8), "two": torch.ones(3, 3, 8, 8)}, enlarge=1)
    assert isinstance(rows, Image.Image) and rows.width == 3 * 10 + 2
