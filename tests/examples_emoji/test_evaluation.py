"""The plugin of `mosaics evaluate` for emoji scenes."""

import sys

import pytest
import torch

from emoji.judge import Judge, JudgeConfig, object_classes
from emoji.recipe import recipe_scenes
from example_scripts import EXAMPLES
from mosaics.cli.plugin import load_plugin
from mosaics.data.training_data import load_train_data

GROUPS = ["animals & nature", "food & drink", "smileys & emotion"]  # those of the recipe


@pytest.fixture(scope="module")
def plugin():
    before = sys.path[:]
    yield load_plugin(EXAMPLES / "emoji" / "evaluation.py")
    sys.path[:] = before
    del sys.modules["mosaics_plugin"]


def scenes_of(plugin, split, **options):
    return load_train_data("emoji", 64, options, plugin.datasets, split=split)


@pytest.fixture(scope="module")
def scenes(plugin):
    return scenes_of(plugin, "test")


def test_the_scenes_are_those_of_the_recipe_unless_options_say_otherwise(plugin, scenes):
    wanted = recipe_scenes("test", 40, size=64)
    for number in range(40):
        assert scenes.describe(number) == wanted.describe(number)
    assert len(scenes) == 4096
    counted = scenes_of(plugin, "test_concepts", mix={"count": 1}, length=7)
    assert len(counted) == 7
    assert {counted.describe(number)[0]["kind"] for number in range(7)} == {"count"}
    assert "concept" in counted.describe(0)[0]["held_out"]


def test_the_judge_reads_each_picture_for_the_scene_of_its_number(plugin, scenes, tmp_path):
    torch.manual_seed(0)
    styles = ["fluent-3d", "noto"]
    judge = Judge(JudgeConfig(names=object_classes(GROUPS, styles), styles=styles, width=8)).eval()
    judge.save_pretrained(tmp_path)
    samples = [scenes[number] for number in range(12)]
    readings = judge.read(torch.stack([sample["pixel_values"] for sample in samples]))
    wanted = [judge.correct(sample["scene"], found) for sample, found in zip(samples, readings, strict=True)]
    assert len({str(statements) for statements in wanted}) > 2
    numbers = [7, 0, 5, 11, 2, 3]
    read = plugin.load_judge(tmp_path, scenes)
    pictures = torch.stack([samples[number]["pixel_values"] for number in numbers])
    assert read(numbers, pictures) == [wanted[number] for number in numbers]
