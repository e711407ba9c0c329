from collections import Counter

import pytest
import torch

from degradation import CELLS, break_pictures, degrade
from emoji.contrast import CHANGES, ContrastScenes
from emoji.scenes import EmojiScenes
from emoji.splits import held_out

OPTIONS = {"styles": {"fluent-3d": 0.7, "noto": 0.3}, "groups": ["animals & nature", "food & drink"]}
STATEMENTS = ("object", "other", "relation", "count", "colour", "style")


@pytest.fixture(scope="module")
def groups():
    data = ContrastScenes("train", length=150, named_style=0.5, **OPTIONS)
    return [data.describe_group(index) for index in range(len(data))]


def differences(first: dict, scene: dict) -> set[str]:
    return {name for name in STATEMENTS if first[name] != scene[name]}


def test_the_first_of_a_group_is_the_scene_of_that_number(groups):
    scenes = EmojiScenes("train", length=150, named_style=0.5, **OPTIONS)
    assert [group[0] for group in groups] == [scenes.describe(index) for index in range(150)]


def test_the_others_differ_from_it_in_one_statement_and_from_each_other(groups):
    changed = {kind: Counter() for kind in CHANGES}
    for group in groups:
        first = group[0][0]
        for scene, _ in group[1:]:
            difference = differences(first, scene)
            if difference == {"object", "other"}:
                assert (scene["object"], scene["other"]) == (first["other"], first["object"])
            else:
                assert len(difference) == 1
            assert scene["kind"] == first["kind"] and scene["style_named"] == first["style_named"]
            changed[first["kind"]][frozenset(difference)] += 1
        assert len({tuple(scene[name] for name in STATEMENTS) for scene, _ in group}) == len(group) == 8
    assert changed["object"].keys() == {frozenset({"object"}), frozenset({"colour"}), frozenset({"style"})}
    assert changed["count"].keys() == {frozenset({"object"}), frozenset({"count"}), frozenset({"colour"})}
    assert changed["relation"].keys() == {
        *(frozenset({name}) for name in ("object", "other", "relation", "colour")),
        frozenset({"object", "other"}),
    }


def test_captions_say_what_their_own_scenes_show(groups):
    for group in groups:
        for scene, caption in group:
            assert scene["colour"] in caption or scene["colour"] == "white"
        captions = [caption for _, caption in group]
        assert len(set(captions)) == len(captions)


def test_training_groups_show_nothing_that_is_held_out(groups):
    assert not any(held_out(scene) or scene["held_out"] for group in groups for scene, _ in group)
    test = ContrastScenes("test", length=40, **OPTIONS)
    for index in range(40):
        for scene, _ in test.describe_group(index):
            assert scene["held_out"] == " ".join(held_out(scene))


def test_items_are_lists_of_samples_with_their_pictures(groups):
    data = ContrastScenes("train", length=150, named_style=0.5, **OPTIONS)
    items = data.__getitems__([3, 0])
    for item, number in zip(items, (3, 0), strict=True):
        assert [(sample["scene"], sample["caption"]) for sample in item] == groups[number]
        for sample in item:
            expected = torch.from_numpy(data.render(sample["scene"])).float() / 255
            assert torch.equal(sample["pixel_values"], expected)


def test_group_size_is_checked():
    with pytest.raises(ValueError, match="group_size must be an integer of at least 2, got 1"):
        ContrastScenes("train", group_size=1, **OPTIONS)
    few = ContrastScenes("train", group_size=2000, mix={"object": 1}, **OPTIONS)
    with pytest.raises(RuntimeError, match="take a lower group_size"):
        few.describe_group(0)


def test_pictures_are_roughened_within_bounds():
    torch.manual_seed(0)
    pictures = torch.zeros(2, 3, 32, 32)
    pictures[:, :, 8:24, 8:24] = 1
    plain = 0
    for _ in range(40):
        changed = degrade(pictures)
        assert changed.shape == pictures.shape and (changed.mean() - pictures.mean()).abs() < 0.02
        assert (changed[:, :, 12:20, 12:20].mean() - 1).abs() < 0.02  # shifts and blur leave the middle
        assert changed[:, :, 0].std() < 0.1
        plain += bool((changed - pictures).abs().max() < 1e-6)
    assert plain == 0


def test_broken_pictures_are_in_pieces_of_two_of_the_batch():
    torch.manual_seed(0)
    values = torch.arange(1, 7).float() / 8
    pictures = values.view(6, 1, 1, 1).expand(6, 3, 64, 64)
    for _ in range(20):
        broken, usable = break_pictures(pictures)
        for picture, own, told in zip(broken, values, usable, strict=True):
            found = picture.unique()
            assert len(found) <= 2 and own in found
            assert set(found.tolist()) <= set(values.tolist())
            share = (picture != own).float().mean()
            assert bool(told) == bool(share > 0)  # a permutation may leave a picture where it is
            assert share <= 0.52
            cells = picture[0].unfold(0, 64 // CELLS, 64 // CELLS).unfold(1, 64 // CELLS, 64 // CELLS)
            assert torch.equal(cells.amin(dim=(2, 3)), cells.amax(dim=(2, 3)))


def test_pictures_that_do_not_show_that_they_are_broken_are_not_used():
    torch.manual_seed(0)
    pictures = torch.full((4, 3, 64, 64), 0.5)
    pictures[0, :, 0, 0] = 1  # one pixel of difference
    _, usable = break_pictures(pictures)
    assert not usable.any()
