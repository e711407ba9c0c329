import io
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from emoji.archive import DEFAULT_ARCHIVE, read_archive, write_archive
from emoji.names import other_names
from emoji.scenes import COLOURS, GROUPS, LAYOUTS, STYLES, EmojiScenes
from emoji.splits import colour_held_out, concept_held_out, held_out, pair_held_out, relation_held_out
from emoji.wording import caption_of, plural, with_article


@pytest.fixture(scope="module")
def pictures():
    return read_archive()


@pytest.fixture(scope="module")
def scenes():
    return {split: EmojiScenes(split) for split in ("train", "test", "test_concepts")}


def scene(**keys):
    base = {"kind": "object", "object": "lion", "other": "", "relation": "", "count": 1, "colour": "blue"}
    return base | {"style": "fluent-3d", "style_named": False, "held_out": ""} | keys


def test_the_archive_holds_every_usable_picture_under_its_licence_within_20_megabytes(pictures):
    assert DEFAULT_ARCHIVE.stat().st_size <= 20_000_000
    assert Counter(p.style for p in pictures)["fluent-3d"] > 1800 and len(pictures) > 7900
    assert {p.style.split("-")[0]: p.licence for p in pictures} == {"noto": "Apache-2.0", "fluent": "MIT"}
    assert not {"", "components"} & {p.group for p in pictures}


def test_the_archive_is_complete_or_refused_with_its_name(tmp_path, pictures):
    whole = tmp_path / "small.parquet"
    assert write_archive(pictures[:50], whole, 64) == 50
    assert sorted(read_archive(whole), key=lambda p: p.path) == sorted(pictures[:50], key=lambda p: p.path)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"torn\.parquet is not a complete emoji archive"):
        read_archive(torn)
    with pytest.raises(FileNotFoundError, match="build"):
        read_archive(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="No such style"):
        read_archive(whole, styles=["fluent3d"])


def test_an_item_is_a_pure_function_of_seed_and_index(scenes):
    again = EmojiScenes("train")
    order = [7, 3, 3, 900_000, 0]
    batched = again.__getitems__(order)
    for item, index in zip(batched, order, strict=True):
        alone = scenes["train"][index]
        assert item["caption"] == alone["caption"] and item["scene"] == alone["scene"]
        torch.testing.assert_close(item["pixel_values"], alone["pixel_values"], rtol=0, atol=0)
    captions = [scenes["train"].describe(i)[1] for i in range(50)]
    other = EmojiScenes(seed=1, length=50)
    assert captions != [other.describe(i)[1] for i in range(50)]
    assert other.describe(-1) == other.describe(49)


def test_these_captions_stay_the_same_for_ever(scenes):
    assert [scenes["train"].describe(i)[1] for i in (0, 1, 12_345)] == [
        "a wheel above an empty nest on a blue background",
        "three copies of penguin on black",
        "clapper board on a green background",
    ]


def test_training_never_shows_what_the_tests_hold_out(scenes):
    facts = {split: Counter() for split in scenes}
    for split, data in scenes.items():
        for index in range(4000):
            drawn, _ = data.describe(index)
            kinds = held_out({**drawn, "held_out": ""})
            assert drawn["held_out"] == " ".join(kinds)
            facts[split].update(kinds or ("none",))
    assert set(facts["train"]) == {"none"}
    assert set(facts["test"]) == {"pair", "relation", "colour", "count"} and min(facts["test"].values()) > 100
    assert facts["test_concepts"]["concept"] == 4000
    assert not set(scenes["train"].concepts) & set(scenes["test_concepts"].concepts)
    assert scenes["test"].concepts == scenes["train"].concepts
    assert 15 <= len(scenes["test_concepts"].concepts) <= 40


def test_held_out_shares_are_what_the_documentation_says():
    names = sorted({p.name for p in read_archive(groups=GROUPS)})
    pairs = list(combinations(names[:150], 2))
    assert 0.04 < np.mean([pair_held_out(*pair) for pair in pairs]) < 0.06
    assert all(pair_held_out(a, b) == pair_held_out(b, a) for a, b in pairs[:500])
    assert 0.04 < np.mean([relation_held_out("above", *pair) for pair in pairs]) < 0.06
    assert any(relation_held_out("above", a, b) != relation_held_out("above", b, a) for a, b in pairs[:500])
    coloured = [colour_held_out(name, colour) for name in names for colour in COLOURS if colour != "white"]
    assert 0.04 < np.mean(coloured) < 0.06
    assert not any(colour_held_out(name, "white") for name in names)


def test_a_picture_shared_by_two_concepts_is_seen_or_held_out_as_one(pictures):
    shown = {}
    for picture in pictures:
        if picture.group in GROUPS and picture.style in STYLES:
            shown.setdefault(picture.image, set()).add(concept_held_out(picture.name))
    assert all(len(answers) == 1 for answers in shown.values())


def test_a_scene_is_drawn_where_its_caption_says(scenes):
    data = scenes["train"]
    above = data.render(scene(kind="relation", object="lion", other="pizza", relation="above"))
    below = data.render(scene(kind="relation", object="pizza", other="lion", relation="above"))
    left = data.render(scene(kind="relation", object="lion", other="pizza", relation="left of"))
    np.testing.assert_array_equal(above[:, 1:31, 17:47], below[:, 33:63, 17:47])
    np.testing.assert_array_equal(above[:, 1:31, 17:47], left[:, 17:47, 1:31])
    np.testing.assert_array_equal(above[:, 33:63, 17:47], left[:, 17:47, 33:63])
    for count in (2, 3, 4):
        picture = data.render(scene(kind="count", count=count))
        blue = np.array(COLOURS["blue"], np.uint8)[:, None, None]
        side, corners = LAYOUTS[count]
        cells = [picture[:, y : y + side, x : x + side] for x, y in corners]
        assert len(cells) == count and all((cell == cells[0]).all() for cell in cells)
        assert (cells[0] != blue).any(axis=0).sum() > 100
        for x, y in corners:
            picture[:, y : y + side, x : x + side] = blue
        assert (picture == blue).all()


def test_the_blend_is_the_one_of_the_alpha_equation(scenes):
    data = scenes["train"]
    on = {colour: data.render(scene(colour=colour)).astype(int) for colour in COLOURS}
    alpha = 1 - (on["white"] - on["black"]) / (255 - 33)
    for colour, rgb in COLOURS.items():
        expected = on["white"] + (1 - alpha) * (np.array(rgb)[:, None, None] - 255)
        assert np.abs(expected - on[colour]).max() <= 3
    assert np.abs(alpha).min() == 0 and alpha.max() == 1


def test_edges_are_blended_by_the_alpha_of_the_picture(scenes, pictures):
    data = EmojiScenes(size=85)  # one object then has 64 pixels: its picture as it is
    source = next(p for p in pictures if (p.style, p.name) == ("fluent-3d", "lion"))
    rgba = np.asarray(Image.open(io.BytesIO(source.image)).convert("RGBA")).astype(float).transpose(2, 0, 1)
    alpha, blue = rgba[3] / 255, np.array(COLOURS["blue"], float)[:, None, None]
    assert ((alpha > 0.1) & (alpha < 0.9)).sum() > 50
    drawn = data.render(scene())[:, 11:75, 11:75]
    assert np.abs(drawn - (rgba[:3] * alpha + blue * (1 - alpha))).max() <= 2


def test_sizes_scale_the_layout_and_pixels_stay_in_range():
    for size in (32, 64, 96):
        item = EmojiScenes(size=size, length=3)[1]
        assert item["pixel_values"].shape == (3, size, size) and item["pixel_values"].dtype == torch.float32
        assert 0 <= item["pixel_values"].min() and item["pixel_values"].max() <= 1


def test_a_data_loader_collates_scenes_with_its_defaults(scenes):
    subset = EmojiScenes("test", length=6)
    batch = next(iter(DataLoader(subset, batch_size=6)))
    assert batch["pixel_values"].shape == (6, 3, 64, 64) and len(batch["caption"]) == 6
    assert batch["scene"]["count"].dtype == torch.int64 and len(batch["scene"]["colour"]) == 6


def test_arguments_choose_kinds_styles_and_groups():
    data = EmojiScenes(mix={"count": 1}, styles=["noto"], groups=["food & drink"], named_style=0, length=200)
    drawn = [data.describe(i)[0] for i in range(200)]
    assert {(s["kind"], s["style"], s["style_named"]) for s in drawn} == {("count", "noto", False)}
    assert "pizza" in data.concepts and "lion" not in data.concepts
    only_named = EmojiScenes(styles={"fluent-3d": 1, "noto": 0}, length=600)
    assert all(s["style_named"] for s, _ in map(only_named.describe, range(600)) if s["style"] == "noto")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "split must be one of"),
        ({"size": 4}, "size must be"),
        ({"length": 0}, "length must be"),
        ({"mix": {"objects": 1}}, "mix has unknown names"),
        ({"mix": {"object": 0}}, "mix must hold weights"),
        ({"styles": {"noto": -1}}, "styles must hold weights"),
        ({"styles": ["emoji"]}, "No such style"),
        ({"groups": ["animals"]}, "No such group"),
        ({"named_style": 2}, "named_style must be"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        EmojiScenes(**arguments)


def test_a_scene_without_a_picture_and_an_index_out_of_range_are_refused(scenes):
    with pytest.raises(ValueError, match="no picture of 'dalek'"):
        scenes["train"].render(scene(object="dalek"))
    with pytest.raises(IndexError, match="4096"):
        scenes["test"][4096]


def test_english_is_right():
    articles = {"owl": "an owl", "unicorn": "a unicorn", "hourglass": "an hourglass", "grapes": "grapes"}
    articles |= {"octopus": "an octopus", "broccoli": "broccoli", "Statue of Liberty": "the statue of liberty"}
    articles |= {"x-ray": "an x-ray", "man’s shoe": "a man's shoe", "nest with eggs": "a nest with eggs"}
    assert {name: with_article(name) for name in articles} == articles
    plurals = {"butterfly": "butterflies", "fish": "fish", "wolf": "wolves", "nest with eggs": "nests with eggs"}
    plurals |= {"bus": "buses", "snowman": "snowmen", "grapes": None, "mouse face": "mouse faces", "key": "keys"}
    assert {name: plural(name) for name in plurals} == plurals


def test_standard_captions_are_those_of_the_documentation():
    def first(options):
        return options[0]

    assert caption_of(scene(), ["lion"], first) == "a lion on a blue background"
    assert caption_of(scene(colour="white"), ["owl"], first) == "an owl"
    named = scene(style_named=True)
    assert caption_of(named, ["sloth"], first) == "a 3d emoji of sloth on a blue background"
    pair = scene(kind="relation", relation="left of")
    assert caption_of(pair, ["ant", "bee"], first) == "an ant to the left of a bee on a blue background"
    assert caption_of(scene(kind="count", count=3), ["lion"], first) == "three copies of lion on a blue background"


def test_every_wording_of_a_relation_names_the_objects_in_its_own_order():
    def wordings(relation):
        seen = set()
        for choice in range(8):
            pair = scene(kind="relation", relation=relation, colour="white")
            seen.add(caption_of(pair, ["ant", "bee"], lambda options, c=choice: options[c % len(options)]))
        return seen

    for caption in wordings("above"):
        ant_first = caption.index("ant") < caption.index("bee")
        assert ant_first == ("above" in caption or "on top of" in caption)
    for caption in wordings("left of"):
        assert (caption.index("ant") < caption.index("bee")) == ("right of" not in caption)
    assert not wordings("above") & wordings("left of")


def test_another_name_means_one_concept_only(pictures):
    chosen = [p for p in pictures if p.group in GROUPS]
    others = other_names(chosen)
    words = [word for names in others.values() for word in names]
    assert len(words) == len(set(words)) and not set(words) & {p.name.lower() for p in chosen}
    assert "car" in others["automobile"] and "cat" not in others.get("cat face", ())
