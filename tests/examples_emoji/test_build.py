import io
import json
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoji import packages as emoji_packages
from emoji.archive import CREDITS, DEFAULT_ARCHIVE, read_archive
from emoji.build import ICON_STYLES, match_icons
from emoji.concepts import Concept, SlugIndex, normalised_hex, read_concepts
from emoji.packages import PACKAGES, Package, PackageFolder
from emoji.rendering import square_webp

BUILD = Path(DEFAULT_ARCHIVE).parent / "build.py"


def write_tarball(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Small packages in the real layout, with their own digests."""
    annotations = {"annotations": {"annotations": {"🦁": {"default": ["face", "lion"], "tts": ["lion"]}}}}
    derived = {"annotationsDerived": {"annotations": {"🦁": {"default": ["derived"]}, "#⃣": {"default": ["keycap"]}}}}
    data = [
        {"hexcode": "1F981", "label": "lion", "emoji": "🦁", "tags": ["face", "mane"], "group": 3, "subgroup": 9},
        {"hexcode": "0023-FE0F-20E3", "label": "keycap: #", "emoji": "#️⃣", "group": 5, "subgroup": 8},
        {"hexcode": "1F1E6", "label": "regional indicator A", "emoji": "🇦"},
        {"hexcode": "1F436", "label": "dog face", "emoji": "🐶", "group": 3, "subgroup": 9},
    ]
    messages = {
        "groups": [{"order": 3, "message": "animals & nature"}, {"order": 5, "message": "symbols"}],
        "subgroups": [{"order": 9, "message": "mammals"}, {"order": 8, "message": "keycaps"}],
    }
    codes = {"1F981": ["lion_face", "lion"], "1F436": "dog"}
    contents = {
        "emojibase-data": {"en/data.json": data, "en/messages.json": messages}
        | {f"en/shortcodes/{name}.json": codes for name in ("cldr", "emojibase", "github", "iamcal", "joypixels")},
        "emojilib": {"dist/emoji-en-US.json": {"🦁": ["lion", "big_cat", "mane"]}},
        "cldr-annotations-full": {"annotations/en/annotations.json": annotations},
        "cldr-annotations-derived-full": {"annotationsDerived/en/annotations.json": derived},
    }
    icons = {
        name: {"body": "<path/>"} for name in ("keycap", "lion-3", "keycap-pound", "dog", "pink-thing", "waving-3")
    }
    characters = {"20e3": "keycap", "0023-20e3": "keycap-pound", "1f44b-1f3fd": "waving-3"}
    for name in ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat"):
        contents[f"@iconify-json/{name}"] = {"icons.json": {"icons": icons, "width": 8}, "chars.json": characters}
    contents["@lobehub/fluent-emoji-3d"] = {"assets/1f981.webp": b"x"}
    small = {}
    for name, members in contents.items():
        package = Package(name, PACKAGES[name].version, "")
        write_tarball(tmp_path / package.filename, members)
        digest = sha256((tmp_path / package.filename).read_bytes()).hexdigest()
        small[name] = Package(name, package.version, digest)
    monkeypatch.setattr(emoji_packages, "PACKAGES", small)
    return tmp_path


def test_concepts_take_words_from_all_sources_in_their_order(folder):
    concepts = read_concepts(PackageFolder(folder))
    lion = concepts["1f981"]
    assert (lion.name, lion.group, lion.subgroup) == ("lion", "animals & nature", "mammals")
    assert lion.alt == ("lion face",) and lion.keywords == ("face", "mane", "big cat")
    assert concepts["23-20e3"].keywords == ("keycap",) and concepts["1f1e6"].group == ""


def test_icons_are_matched_by_code_points_before_names(folder):
    packages = PackageFolder(folder)
    chosen, unmatched = match_icons(packages, "noto", read_concepts(packages))
    assert chosen == {"23-20e3": "keycap-pound", "1f981": "lion-3", "1f436": "dog"}
    assert unmatched == ["pink-thing"]  # the icon with a skin tone is no concept and no failure


def test_a_wrong_or_missing_tarball_is_named(folder, monkeypatch):
    path = folder / PACKAGES["emojilib"].filename
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RuntimeError, match=r"emojilib-4\.0\.3\.tgz has SHA-256 .* expected"):
        PackageFolder(folder)
    path.unlink()
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(RuntimeError, match=r"npm is not installed: install npm, or run `npm pack emojilib@4\.0\.3`"):
        PackageFolder(folder)


def test_code_points_and_icon_names_are_normalised():
    assert normalised_hex("0023-FE0F-20E3") == "23-20e3"
    index = SlugIndex(
        [Concept("1", "", "flag: Côte", "", "", ("st. john’s",), ()), Concept("2", "", "dog face", "", "", (), ())]
    )
    assert index.find("dog") == "2" and index.find("dog-2") is None and index.find("st-johns") == "1"


def test_a_picture_is_centred_averaged_premultiplied_and_keeps_its_alpha():
    wide = np.zeros((64, 128, 4), np.uint8)
    wide[:, :, :3] = (0, 255, 0)  # a green that must never show
    wide[:, 64:] = (200, 0, 0, 255)
    pixels = np.asarray(Image.open(io.BytesIO(square_webp(Image.fromarray(wide), 32))).convert("RGBA"))
    assert pixels.shape == (32, 32, 4)
    assert (pixels[:8, :, 3] == 0).all() and (pixels[24:, :, 3] == 0).all() and (pixels[8:24, :16, 3] == 0).all()
    assert (pixels[8:24, 16:] == (200, 0, 0, 255)).all()
    shifted = np.roll(wide, 2, axis=1)  # 4 x 4 pixels become one: a column is half covered
    shifted[:, :2] = (0, 255, 0, 0)
    half = np.asarray(Image.open(io.BytesIO(square_webp(Image.fromarray(shifted), 32))).convert("RGBA"))[16, 16]
    assert abs(int(half[3]) - 128) <= 1 and half[:3].tolist() == [200, 0, 0]
    assert square_webp(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), 4) is None


def test_the_shipped_archive_holds_what_the_builder_would_pack():
    pictures = read_archive(styles=["noto", "fluent-3d"])
    keys = [(picture.style, picture.hex) for picture in pictures]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert set(ICON_STYLES) | {"fluent-3d"} == {"noto", "noto-v1", "fluent-color", "fluent-flat", "fluent-3d"}
    names = {(picture.style, picture.name) for picture in pictures}
    assert len(names) == len(keys)
    image = Image.open(io.BytesIO(pictures[0].image))
    assert image.size == (64, 64) and image.format == "WEBP"


def test_datasets_reads_the_archive_with_its_pictures_and_credits(tmp_path):
    import pyarrow.parquet as pq
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    assert pq.read_schema(DEFAULT_ARCHIVE).metadata[b"credits"].decode() == "; ".join(CREDITS)
    table = load_dataset("parquet", data_files=str(DEFAULT_ARCHIVE), split="train[:2]", cache_dir=str(tmp_path))
    assert isinstance(table.features["image"], ImageFeature) and table[0]["image"].size == (64, 64)


def test_the_command_line_explains_itself_and_refuses_a_bad_size():
    done = subprocess.run([sys.executable, str(BUILD), "--help"], capture_output=True, text=True, check=True)
    assert "--packages" in done.stdout and "--size" in done.stdout
    done = subprocess.run([sys.executable, str(BUILD), "--size", "4096"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--size must be between 16 and 256" in done.stderr
