"""The picture of a run's numbers."""

import json

import pytest
from PIL import Image

from mosaics.training.curves import draw_curves, read_curves

ROWS = [
    {"step": 1, "loss": 3.0, "epoch": 0},
    {"step": 2, "loss": None, "perplexity": 7.0},
    {"step": 2, "eval_loss": 2.5},
    {"step": 3, "loss": 2.0},
]


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_curves_are_the_finite_numbers_by_quantity(metrics):
    assert read_curves(metrics) == {
        "loss": {"training": [(1, 3.0), (3, 2.0)], "held out": [(2, 2.5)]},
        "perplexity": {"training": [(2, 7.0)]},
    }


def test_the_picture_has_lines_of_both_kinds(metrics, tmp_path):
    picture = tmp_path / "curves.png"
    assert draw_curves(metrics, picture)
    with Image.open(picture) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # the first two colours of matplotlib
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_without_numbers_there_is_no_picture(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert not draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert not draw_curves(tmp_path / "none.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
