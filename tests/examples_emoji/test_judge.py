"""The judge of scenes: where it looks, what it calls right, and that it can learn to read."""

import pytest
import torch

from emoji.judge import COLOUR_NAMES, LAYOUT_NAMES, Judge, JudgeConfig, layout_of, object_classes, objects_of
from emoji.scenes import COLOURS, LAYOUTS, EmojiScenes
from emoji.train_judge import labels_of

GROUPS = ["animals & nature"]
STYLES = ["fluent-3d", "noto"]
LION = {"kind": "object", "object": "lion", "other": "", "relation": "", "count": 1, "colour": "blue"}
LION |= {"style": "fluent-3d", "style_named": False, "held_out": ""}
PAIR = LION | {"kind": "relation", "other": "dog", "relation": "above"}
THREE = LION | {"kind": "count", "count": 3}


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return Judge(JudgeConfig(names=object_classes(GROUPS, STYLES), styles=STYLES, width=8)).eval()


@pytest.fixture(scope="module")
def scenes():
    return EmojiScenes("train", groups=GROUPS, styles=STYLES, length=1000)


def test_concepts_with_one_picture_are_one_class_and_every_concept_is_in_one():
    classes = object_classes(["smileys & emotion"], STYLES)
    assert ["cat face", "grinning cat"] in object_classes([*GROUPS, "smileys & emotion"], STYLES)
    names = [name for names in classes for name in names]
    assert len(names) == len(set(names)) > 100


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("scene", [LION, PAIR, THREE], ids=["object", "relation", "count"])
def test_the_places_hold_the_objects_and_nothing_but_background_is_outside(judge, scene, size):
    scenes = EmojiScenes("train", size=size, groups=GROUPS, styles=STYLES)
    picture = torch.from_numpy(scenes.render(scene)).float() / 255
    crops, owners = judge.crops(picture[None], torch.tensor([layout_of(scene)]))
    assert len(crops) == len(objects_of(scene)) and owners.unique().tolist() == [0]
    background = torch.tensor(COLOURS["blue"])[:, None, None] / 255
    assert ((crops - background).abs().amax(dim=(1, 2, 3)) > 0.2).all()
    side, corners = LAYOUTS[LAYOUT_NAMES[layout_of(scene)]]
    outside = (picture - background).abs().amax(dim=0)
    for x, y in corners:
        x, y, width = (round(number * size / 64) for number in (x, y, side))
        outside[y : y + width, x : x + width] = 0
    assert outside.max() < 0.01


def reading(judge, layout, names, colour="blue", style="fluent-3d"):
    objects = [judge.class_of[name] for name in names]
    return {"layout": LAYOUT_NAMES.index(layout), "colour": colour, "objects": objects, "styles": [style] * len(names)}


@pytest.mark.parametrize(
    ("scene", "arguments", "right"),
    [
        (LION, ("object", ["lion"]), {"object": [True], "colour": [True], "all": [True]}),
        (LION, ("object", ["dog"]), {"object": [False], "colour": [True], "all": [False]}),
        (LION, ("object", ["lion"], "red"), {"object": [True], "colour": [False], "all": [False]}),
        (
            PAIR,
            ("above", ["lion", "dog"]),
            {"object": [True, True], "colour": [True], "relation": [True], "all": [True]},
        ),
        (
            PAIR,
            ("above", ["dog", "lion"]),
            {"object": [False, False], "colour": [True], "relation": [True], "all": [False]},
        ),
        (
            PAIR,
            ("above", ["lion", "lion"]),
            {"object": [True, False], "colour": [True], "relation": [True], "all": [False]},
        ),
        (
            PAIR,
            ("left of", ["lion", "dog"]),
            {"object": [False, False], "colour": [True], "relation": [False], "all": [False]},
        ),
        (
            LION | {"kind": "count", "count": 2},
            ("left of", ["lion"] * 2),
            {"object": [True], "colour": [True], "count": [True], "all": [True]},
        ),
        (THREE, (3, ["lion"] * 3), {"object": [True], "colour": [True], "count": [True], "all": [True]}),
        (THREE, (3, ["lion", "lion", "dog"]), {"object": [False], "colour": [True], "count": [True], "all": [False]}),
        (THREE, (4, ["lion"] * 4), {"object": [False], "colour": [True], "count": [False], "all": [False]}),
        (
            LION | {"style_named": True},
            ("object", ["lion"], "blue", "noto"),
            {"object": [True], "colour": [True], "style": [False], "all": [False]},
        ),
    ],
)
def test_only_what_the_caption_says_is_judged(judge, scene, arguments, right):
    assert judge.correct(scene, reading(judge, *arguments)) == right


def test_labels_say_what_the_scenes_are(judge, scenes):
    samples = scenes.__getitems__(list(range(40)))
    labels = labels_of(judge, samples)
    for row, sample in enumerate(samples):
        scene = sample["scene"]
        found = {
            "layout": int(labels["layouts"][row]),
            "colour": COLOUR_NAMES[labels["colours"][row]],
            "objects": [int(number) for number in labels["objects"][row] if number >= 0],
            "styles": [judge.config.styles[labels["styles"][row]]] * len(objects_of(scene)),
        }
        assert judge.correct(scene, found)["all"] == [True]


def test_a_judge_learns_to_read_scenes_and_reads_them_after_loading(scenes, tmp_path):
    torch.manual_seed(0)
    judge = Judge(JudgeConfig(names=object_classes(GROUPS, STYLES), styles=STYLES, width=16))
    samples = scenes.__getitems__(list(range(24)))
    labels = labels_of(judge, samples)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    for _ in range(150):
        judge(**labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    judge.save_pretrained(tmp_path)
    readings = Judge.from_pretrained(tmp_path).eval().read(labels["pixel_values"])
    right = [
        judge.correct(sample["scene"], found)["all"] == [True] for sample, found in zip(samples, readings, strict=True)
    ]
    assert sum(right) >= 22
