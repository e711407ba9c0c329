"""Captioned scenes composed from the emoji pictures, without end: item `i` is a pure function of `(seed, split, i)`.

A scene is one object, two objects in a relation, or several copies of one object, on one of eight colours; its
caption says exactly that. Layouts and colours are those of `LAYOUTS` and `COLOURS`. `emoji.splits` says what is held
out.
"""

import io
import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from .archive import DEFAULT_ARCHIVE, read_archive
from .names import EVERYDAY_NAMES, other_names
from .splits import concept_held_out, held_out
from .wording import caption_of

GROUPS = ("animals & nature", "food & drink", "travel & places", "objects", "activities", "smileys & emotion")
STYLES = MappingProxyType({"fluent-3d": 0.6, "noto": 0.2, "noto-v1": 0.1, "fluent-flat": 0.1})
MIX = MappingProxyType({"object": 0.5, "relation": 0.3, "count": 0.2})
SPLITS = ("train", "test", "test_concepts")
COLOURS = MappingProxyType(
    {
        **{"white": (255, 255, 255), "red": (235, 64, 52), "blue": (66, 135, 245), "green": (76, 175, 80)},
        **{"yellow": (253, 216, 53), "pink": (244, 143, 177), "black": (33, 33, 33), "purple": (149, 117, 205)},
    }
)
WHITE_SHARE = 0.3
OTHER_NAME_SHARE = 0.1
EVERYDAY_NAME_SHARE = 0.4
RELATIONS = ("left of", "above")
COUNTS = (2, 3, 4)
# Side of a picture and (x, y) of its corners, on a canvas of 64 x 64. A single object fills whole cells of a grid of
# 8 or 4 pixels, and small ones lie alike in theirs, so that an object has the same codes wherever it stands.
LAYOUTS = MappingProxyType(
    {
        "object": (48, ((8, 8),)),
        "left of": (30, ((1, 17), (33, 17))),
        "above": (30, ((17, 1), (17, 33))),
        2: (30, ((1, 17), (33, 17))),
        3: (30, ((17, 1), (1, 33), (33, 33))),
        4: (30, ((1, 1), (33, 1), (1, 33), (33, 33))),
    }
)


class Draws:
    """Numbers that depend on the key alone, the same on every machine and in every library version."""

    def __init__(self, *key: object) -> None:
        self._key = "/".join(map(str, key)).encode()
        self._block, self._left = 0, b""

    def unit(self) -> float:
        """The next number in [0, 1)."""
        if not self._left:
            self._left = blake2b(self._key + b"/%d" % self._block).digest()
            self._block += 1
        chunk, self._left = self._left[:4], self._left[4:]
        return int.from_bytes(chunk, "big") / 2**32

    def pick(self, options: Sequence):
        """One of the options, evenly."""
        return options[int(self.unit() * len(options))]

    def weighted(self, weights: Mapping):
        """One of the keys, by weight (the weights sum to 1)."""
        left = self.unit()
        for key, weight in weights.items():
            left -= weight
            if left < 0:
                return key
        return max(weights, key=weights.get)


class EmojiScenes(Dataset):
    r"""Captioned scenes of emoji pictures, as a map-style dataset.

    Item `i` is `{"pixel_values": float32 (3, size, size) in [0, 1], "caption": str, "scene": dict}`. The scene always
    has the same keys, with `""` for what it lacks, so that the default collation of a `DataLoader` works: `kind`
    (`object`, `relation` or `count`), `object`, `other`, `relation` (`left of` or `above`: object to other), `count`,
    `colour`, `style`, `style_named` (whether the caption names the style) and `held_out` (what of it is kept from
    training, joined by spaces).

    Captions vary in wording ("a lion on a blue background", "lion on blue"). One without a colour has a white
    background; one without a style shows any style, by `styles`.

    Args:
        split: `"train"` never shows a held-out concept or combination; every scene of `"test"` has a held-out
            combination of concepts seen in training; every scene of `"test_concepts"` has a held-out concept.
        size: Side of the pictures in pixels. Above 64 use a larger archive, or the pictures are enlarged.
        seed: Another seed gives other scenes; the splits do not depend on it.
        length: Number of items; 1,000,000 for training and 4,096 otherwise by default.
        mix: Share of each kind of scene, by default 50 % `object`, 30 % `relation`, 20 % `count`.
        styles: The styles with their weights for captions that name no style (a weight of 0 means: only if named),
            or a list of styles.
        groups: Groups of the concepts that are drawn.
        named_style: Share of the `object` scenes whose caption names the style, which is then drawn evenly.
        archive: Parquet file of the pictures.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        split: str = "train",
        size: int = 64,
        seed: int = 0,
        length: int | None = None,
        mix: Mapping[str, float] = MIX,
        styles: Mapping[str, float] | Sequence[str] = STYLES,
        groups: Sequence[str] = GROUPS,
        named_style: float = 0.3,
        archive: str | os.PathLike = DEFAULT_ARCHIVE,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}.")
        if not isinstance(size, int) or size < 8:
            raise ValueError(f"size must be an integer of at least 8 pixels, got {size!r}.")
        length = (1_000_000 if split == "train" else 4_096) if length is None else length
        if not isinstance(length, int) or length < 1:
            raise ValueError(f"length must be an integer of at least 1, got {length!r}.")
        if not 0 <= named_style <= 1:
            raise ValueError(f"named_style must be a share between 0 and 1, got {named_style!r}.")
        self.split, self.size, self.seed, self.length = split, size, seed, length
        self.named_style = named_style
        self.mix = _shares("mix", mix, allowed=tuple(MIX))
        self.styles = _shares("styles", styles if isinstance(styles, Mapping) else dict.fromkeys(styles, 1.0))
        pictures = [p for p in read_archive(archive, tuple(self.styles), groups) if not _is_clock_time(p.name)]
        self._pictures = {(p.style, p.name): p.image for p in pictures}
        self._other_names = other_names(pictures)
        self._concepts, self._held_concepts = {}, {}
        for style in self.styles:
            names = sorted({p.name for p in pictures if p.style == style})
            self._concepts[style] = [name for name in names if not concept_held_out(name)]
            self._held_concepts[style] = [name for name in names if concept_held_out(name)]
            drawn = self._held_concepts[style] if split == "test_concepts" else self._concepts[style]
            if len(self._concepts[style]) < 2 or not drawn:
                raise ValueError(f"Style {style!r} has too few concepts in groups {list(groups)}: choose more groups.")
        self._sprites: dict[tuple[str, str, int], tuple[np.ndarray, np.ndarray]] = {}
        clear = 255 - np.arange(256)
        self._backgrounds = {  # colour seen through each alpha: (3, 256)
            name: np.rint(np.array(rgb)[:, None] * clear / 255).astype(np.uint8) for name, rgb in COLOURS.items()
        }

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        scene, caption = self.describe(index)
        pixels = torch.from_numpy(self.render(scene)).to(torch.float32).div_(255)
        return {"pixel_values": pixels, "caption": caption, "scene": scene}

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        return self.samples([self.describe(index) for index in indices])

    def samples(self, described: Sequence[tuple[dict, str]]) -> list[dict]:
        """The items of scenes with their captions, as `describe` gives them; one array holds all pictures."""
        canvases = np.empty((len(described), 3, self.size, self.size), np.uint8)
        for canvas, (scene, _) in zip(canvases, described, strict=True):
            self.render(scene, out=canvas)
        pixels = torch.from_numpy(canvases).to(torch.float32).div_(255)
        return [
            {"pixel_values": image, "caption": caption, "scene": scene}
            for image, (scene, caption) in zip(pixels, described, strict=True)
        ]

    @property
    def concepts(self) -> list[str]:
        """Names of the concepts that this split draws from, sorted."""
        pool = self._held_concepts if self.split == "test_concepts" else self._concepts
        return sorted(set().union(*pool.values()))

    def describe(self, index: int) -> tuple[dict, str]:
        """The scene and the caption of item `index`, without its picture."""
        if not -self.length <= index < self.length:
            raise IndexError(f"index {index} is out of range for {self.length} scenes.")
        draws = Draws(self.seed, self.split, index % self.length)
        for _ in range(10_000):
            scene = self._draw_scene(draws)
            found = held_out(scene)
            if bool(found) == (self.split == "train") or ("concept" in found) != (self.split == "test_concepts"):
                continue
            scene["held_out"] = " ".join(found)
            return scene, self.caption(scene, draws)
        raise RuntimeError(
            f"No scene of split {self.split!r} was found for index {index}: choose more groups or styles."
        )

    def concepts_of(self, style: str) -> list[str]:
        """Names of the concepts of one style that may be drawn in training, sorted."""
        return self._concepts[style]

    def caption(self, scene: Mapping, draws: Draws) -> str:
        """A caption of a scene, in a wording that the draws decide."""
        names = [self._word_for(name, draws) for name in (scene["object"], scene["other"]) if name]
        return caption_of(scene, names, draws.pick)

    def render(self, scene: Mapping, out: np.ndarray | None = None) -> np.ndarray:
        """Draws a scene as uint8 `(3, size, size)`; `scene` may be written by hand, see the class for its keys."""
        kind = scene["kind"]
        side, corners = LAYOUTS[{"object": "object", "relation": scene["relation"], "count": scene["count"]}[kind]]
        names = (scene["object"], scene["other"]) if kind == "relation" else (scene["object"],) * len(corners)
        background = self._backgrounds[scene["colour"]]
        if out is None:
            out = np.empty((3, self.size, self.size), np.uint8)
        out[:] = background[:, :1, None]
        side = max(1, round(side * self.size / 64))
        for name, (x, y) in zip(names, corners, strict=True):
            x, y = round(x * self.size / 64), round(y * self.size / 64)
            colour, alpha = self._sprite(scene["style"], name, side)
            region = out[:, y : y + side, x : x + side]
            np.add(colour, background[:, alpha], out=region)
        return out

    def _draw_scene(self, draws: Draws) -> dict:
        """A scene by the shares, whatever is held out; except that `test_concepts` shows a held-out object."""
        kind = draws.weighted(self.mix)
        style_named = kind == "object" and draws.unit() < self.named_style
        style = draws.pick(list(self.styles)) if style_named else draws.weighted(self.styles)
        seen, held = self._concepts[style], self._held_concepts[style]
        first, other, relation, count = draws.pick(held if self.split == "test_concepts" else seen), "", "", 1
        if kind == "relation":
            other, relation = draws.pick(seen), draws.pick(RELATIONS)
            while other == first:
                other = draws.pick(seen)
            if self.split == "test_concepts" and draws.unit() < 0.5:
                first, other = other, first
        elif kind == "count":
            count = draws.pick(COUNTS)
        white = draws.unit() < WHITE_SHARE
        colour = "white" if white else draws.pick([name for name in COLOURS if name != "white"])
        return {
            **{"kind": kind, "object": first, "other": other, "relation": relation, "count": count},
            **{"colour": colour, "style": style, "style_named": style_named, "held_out": ""},
        }

    def _word_for(self, name: str, draws: Draws) -> str:
        """The concept's name, or sometimes another word for it; more often where people prefer that word."""
        share = EVERYDAY_NAME_SHARE if name in EVERYDAY_NAMES else OTHER_NAME_SHARE
        others = self._other_names.get(name)
        return draws.pick(others) if others and draws.unit() < share else name

    def _sprite(self, style: str, name: str, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Premultiplied colour `(3, side, side)` and alpha `(side, side)` of a picture, resized once."""
        key = (style, name, side)
        if key not in self._sprites:
            if (style, name) not in self._pictures:
                raise ValueError(
                    f"There is no picture of {name!r} in style {style!r} among the chosen styles and groups."
                )
            image = Image.open(io.BytesIO(self._pictures[style, name])).convert("RGBA").convert("RGBa")
            planes = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
            alpha = planes[3].copy()
            self._sprites[key] = (np.minimum(planes[:3], alpha), alpha)
        return self._sprites[key]


def _shares(argument: str, weights: Mapping[str, float], allowed: Sequence[str] | None = None) -> dict[str, float]:
    """Weights that sum to 1; refuses unknown names, negative weights and a sum of zero."""
    unknown = sorted(set(weights) - set(allowed or weights))
    if unknown:
        raise ValueError(f"{argument} has unknown names {unknown}; known are {list(allowed)}.")
    total = sum(weights.values())
    if not weights or not 0 < total < float("inf") or min(weights.values()) < 0:
        raise ValueError(f"{argument} must hold weights of at least 0 with a positive sum, got {dict(weights)}.")
    return {name: weight / total for name, weight in weights.items()}


def _is_clock_time(name: str) -> bool:
    """The 24 clock faces differ by a hand only: they are left out of the scenes."""
    return name.endswith(("o’clock", "-thirty"))
