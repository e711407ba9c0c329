"""`mosaics evaluate --plugin`: data sets and a judge from a Python file of the user's own."""

import json
import sys

import pytest

from mosaics.cli.plugin import load_plugin

# The judge's folder lists the numbers of the captions that it calls right.
PLUGIN = """
import json
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset


@dataclass
class Plain(Dataset):
    split: str
    size: int
    length: int = 5
    offset: float = 0.0

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        pixels = torch.full((3, self.size, self.size), self.offset + index / 10)
        return {"pixel_values": pixels, "caption": "a lion", "number": index}


DATASETS = {"plain": Plain}


def load_judge(folder, dataset):
    right = json.loads((folder / "right.json").read_text())

    def read(numbers, pictures):
        if pictures.shape[1:] != (3, dataset.size, dataset.size) or not 0 <= pictures.min() <= pictures.max() <= 1:
            raise ValueError(f"these are no pictures: {pictures.shape}")
        found = [dataset[number]["number"] in right for number in numbers]
        return [{"animal": [one], "colour": [True], "all": [one]} for one in found]

    return read
"""


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Nothing stays of a plugin after its test."""
    monkeypatch.setitem(sys.modules, "mosaics_plugin", None)


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def judge(tmp_path):
    folder = tmp_path / "judge"
    folder.mkdir()
    (folder / "right.json").write_text("[0, 3, 4]")
    return folder


def test_the_judge_of_a_plugin_gives_the_share_of_captions_drawn_right(run, checkpoints, plugin, judge, tmp_path):
    arguments = ("evaluate", checkpoints / "dalle", "--plugin", plugin, "--dataset", "plain", "--judge", judge)
    code, out, _ = run(*arguments, "--metrics", "caption_correctness", "--output", tmp_path / "report.json")
    (found,) = json.loads((tmp_path / "report.json").read_text())
    assert code == 0 and found["metrics"] == {"caption_correctness": 0.6}
    assert found["remarks"]["caption_correctness"] == "animal 60.0% of 5, colour 100.0% of 5"
    assert found["dataset"] == "plain (test)" and found["num_images"] == 5
    lines = out.splitlines()
    assert lines[1].split() == ["captions", "drawn", "right", "0.6", "share", "(higher", "is", "better)"]
    assert lines[2] == "captions drawn right: animal 60.0% of 5, colour 100.0% of 5"
    code, out, err = run(*arguments, "--num_prompts", 3, "--json")
    reconstruction, generation = json.loads(out)
    assert code == 0 and "Loading weights" not in err
    assert generation["metrics"]["caption_correctness"] == pytest.approx(1 / 3)
    assert generation["metrics"]["clip_score"] is not None and reconstruction["metrics"]["psnr"] > 0


def test_a_data_set_of_a_plugin_gets_the_split_and_the_options(run, checkpoints, plugin):
    arguments = ("evaluate", checkpoints / "dvae", "--plugin", plugin, "--dataset", "plain", "--json")
    (found,) = json.loads(run(*arguments, "--metrics", "mse", "--split", "train")[1])
    assert found["num_images"] == 5 and found["dataset"] == "plain (train)"
    options = ("--dataset_options", '{"length": 3, "offset": 0.5}')
    (other,) = json.loads(run(*arguments, "--metrics", "mse", *options)[1])
    assert other["num_images"] == 3 and other["metrics"]["mse"] != found["metrics"]["mse"]
    code, _, err = run(*arguments, "--dataset_options", '{"colour": "red"}')
    assert code == 1 and "'colour'" in err


def test_a_plugin_may_judge_a_data_set_that_is_not_its_own(run, checkpoints, tmp_path):
    path = tmp_path / "judging.py"
    path.write_text(
        "def load_judge(folder, data):\n    return lambda numbers, drawn: [{'all': [True]}] * len(numbers)"
    )
    plugin = load_plugin(path)
    assert plugin.datasets == {}
    assert plugin.load_judge(tmp_path, None)([7], None) == [{"all": [True]}]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import no_such_package_of_anybody", ("ModuleNotFoundError", "no_such_package_of_anybody")),
        ("DATASETS = {", ("SyntaxError", "line 1")),
        ("raise SystemExit('called as a script')", ("SystemExit", "called as a script")),
        ("x = 1", ("offers nothing", "DATASETS", "load_judge")),
        ("DATASETS = {}", ("offers nothing",)),
        ("DATASETS = ['plain']", ("DATASETS", "must map names to functions", "['plain']")),
        ("DATASETS = {'plain': 3}", ("must map names to functions", "got 3 for 'plain'")),
        ("DATASETS = {3: dict}", ("must map names to functions", "for 3")),
        ("load_judge = 'judge'", ("load_judge", "must be a function", "'judge'")),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said_with_its_file(run, tmp_path, text, named):
    path = tmp_path / "mine.py"
    path.write_text(text)
    code, out, err = run("evaluate", "--plugin", path, "--dataset", "plain")
    assert code == 1 and not out and err.count("\n") == 1
    assert str(path) in err and all(word in err for word in named)


def test_a_judge_needs_a_plugin_that_loads_one(run, checkpoints, plugin, judge, tmp_path):
    start = ("evaluate", checkpoints / "dalle", "--dataset", "plain")
    code, _, err = run(*start, "--judge", judge)
    assert code == 2 and "--plugin" in err
    code, _, err = run(*start, "--judge", judge, "--plugin", plugin, "--kind", "reconstruction")
    assert code == 2 and "--judge" in err and "caption_correctness" in err
    code, _, err = run(*start, "--judge", judge, "--plugin", plugin, "--metrics", "clip_score")
    assert code == 2 and "--judge" in err and "caption_correctness" in err
    code, _, err = run("evaluate", checkpoints / "dvae", "--dataset", "plain", "--judge", judge, "--plugin", plugin)
    assert code == 1 and "--judge" in err and "model_index.json" in err
    lone = tmp_path / "lone.py"
    lone.write_text(PLUGIN.partition("def load_judge")[0])
    code, _, err = run(*start, "--judge", judge, "--plugin", lone)
    assert code == 1 and str(lone) in err and "load_judge" in err
    lone.write_text(PLUGIN.replace("    return read", "    return right  # not read"))
    code, _, err = run(*start, "--judge", judge, "--plugin", lone)
    assert code == 1 and "must return a function" in err and "[0, 3, 4]" in err


def test_files_and_folders_that_are_not_there_are_named(run, plugin, tmp_path):
    start = ("evaluate", "--dataset", "plain")
    code, _, err = run(*start, "--plugin", tmp_path / "none.py")
    assert code == 2 and "--plugin" in err and "none.py" in err and "does not exist" in err
    code, _, err = run(*start, "--plugin", tmp_path)
    assert code == 2 and "is a directory" in err
    (tmp_path / "notes.txt").write_text(PLUGIN)
    code, _, err = run(*start, "--plugin", tmp_path / "notes.txt")
    assert code == 2 and "notes.txt" in err and ".py" in err
    code, _, err = run(*start, "--plugin", plugin, "--judge", tmp_path / "nobody")
    assert code == 2 and "--judge" in err and "nobody" in err and "does not exist" in err
