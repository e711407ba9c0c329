"""A judge of emoji scenes: reads objects, number, background colour, relation and art style off a picture.

It measures how often a generated picture is what its caption says. It is trained on real scenes alone, apart from the
generator and from CLIP, and must never rank or train them. `train_judge.py` trains it, `score.py` uses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .archive import DEFAULT_ARCHIVE, read_archive
from .scenes import COLOURS, LAYOUTS

# Two copies lie where two different objects beside each other do: what the objects are tells them apart.
NAME_OF_LAYOUT = {layout: name for name, layout in reversed(LAYOUTS.items())}
LAYOUT_NAMES = tuple(name for name in LAYOUTS if name in NAME_OF_LAYOUT.values())  # "object", "left of", "above", 3, 4
COLOUR_NAMES = tuple(COLOURS)
CROP_SIDE = 32
MAX_OBJECTS = 4


class JudgeConfig(PreTrainedConfig):
    """Configuration of a [`Judge`].

    Args:
        names: For each class of objects its names; concepts with the very same picture are one class.
        styles: The art styles told apart.
        width: Channels of the first convolutions.
    """

    model_type = "emoji_judge"
    names: list[list[str]] | None = None
    styles: list[str] | None = None
    width: int = 32


@dataclass
class JudgeOutput(ModelOutput):
    """The loss, and the share of a batch that is read right, for each kind of reading."""

    loss: torch.FloatTensor | None = None
    layout: torch.FloatTensor | None = None
    colour: torch.FloatTensor | None = None
    object: torch.FloatTensor | None = None
    style: torch.FloatTensor | None = None


def object_classes(groups: Sequence[str], styles: Sequence[str]) -> list[list[str]]:
    """The names of the concepts, those with one and the same picture in the first style together; sorted."""
    by_picture: dict[object, list[str]] = {}
    pictures = read_archive(DEFAULT_ARCHIVE, tuple(styles), tuple(groups))
    first = {picture.name: picture.image for picture in pictures if picture.style == styles[0]}
    for name in sorted({picture.name for picture in pictures}):
        by_picture.setdefault(first.get(name, name), []).append(name)
    return sorted(by_picture.values())


def layout_of(scene: Mapping) -> int:
    """The number of a scene's layout in `LAYOUT_NAMES`."""
    key = {"object": "object", "relation": scene["relation"], "count": scene["count"]}[scene["kind"]]
    return LAYOUT_NAMES.index(NAME_OF_LAYOUT[LAYOUTS[key]])


def objects_of(scene: Mapping) -> list[str]:
    """The objects of a scene, one for each place of its layout."""
    if scene["kind"] == "relation":
        return [scene["object"], scene["other"]]
    return [scene["object"]] * scene["count"]


def convolutions(widths: Sequence[int]) -> nn.Sequential:
    """3 x 3 convolutions with norms, halving the picture after each but the first, then a mean."""
    layers: list[nn.Module] = []
    for index, (a, b) in enumerate(zip([3, *widths[:-1]], widths, strict=True)):
        layers += [nn.Conv2d(a, b, 3, stride=1 if index == 0 else 2, padding=1), nn.GroupNorm(4, b), nn.GELU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


class Judge(PreTrainedModel):
    """Two small networks: one reads layout and background of the picture, one the object and style of each place."""

    config: JudgeConfig
    config_class = JudgeConfig
    main_input_name = "pixel_values"

    def __init__(self, config: JudgeConfig):
        super().__init__(config)
        width = config.width
        self.scene = convolutions([width // 2, width, width, width * 2])
        self.layout_head = nn.Linear(8 * width, len(LAYOUT_NAMES))
        self.colour_head = nn.Linear(8 * width, len(COLOUR_NAMES))
        self.object = convolutions([width, width * 2, width * 4, width * 8])
        self.object_head = nn.Linear(32 * width, len(config.names))
        self.style_head = nn.Linear(32 * width, len(config.styles))
        self.class_of = {name: index for index, names in enumerate(config.names) for name in names}
        self.post_init()

    def crops(self, pixel_values: torch.Tensor, layouts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The places of each picture's layout, `(N, 3, 32, 32)`, and the picture `(N,)` that each is from."""
        scale, found, owners = pixel_values.shape[-1] / 64, [], []
        for index, layout in enumerate(layouts.tolist()):
            side, corners = LAYOUTS[LAYOUT_NAMES[layout]]
            side = round(side * scale)
            for x, y in corners:
                x, y = round(x * scale), round(y * scale)
                region = pixel_values[index : index + 1, :, y : y + side, x : x + side]
                found.append(F.interpolate(region, size=(CROP_SIDE, CROP_SIDE), mode="bilinear", antialias=True))
                owners.append(index)
        return torch.cat(found), torch.tensor(owners)

    def forward(
        self,
        pixel_values: torch.FloatTensor,
        layouts: torch.LongTensor,
        colours: torch.LongTensor,
        styles: torch.LongTensor,
        objects: torch.LongTensor,
    ) -> JudgeOutput:
        """The loss of real scenes. `objects` `(B, 4)` are classes of the places in order, -1 beyond the last."""
        scene = self.scene(pixel_values)
        crops, owners = self.crops(pixel_values, layouts)
        place = self.object(crops)
        targets = objects[objects >= 0]
        readings = {
            "layout": (self.layout_head(scene), layouts),
            "colour": (self.colour_head(scene), colours),
            "object": (self.object_head(place), targets),
            "style": (self.style_head(place), styles[owners]),
        }
        loss = sum(F.cross_entropy(logits.float(), target) for logits, target in readings.values())
        right = {name: (logits.argmax(1) == target).float().mean() for name, (logits, target) in readings.items()}
        return JudgeOutput(loss=loss, **right)

    @torch.no_grad()
    def read(self, pixel_values: torch.FloatTensor) -> list[dict]:
        """What pictures `(B, 3, H, W)` in [0, 1] show: `layout`, `colour`, `style`, and the `objects`' classes."""
        scene = self.scene(pixel_values)
        layouts = self.layout_head(scene).argmax(1)
        colours = self.colour_head(scene).argmax(1)
        crops, owners = self.crops(pixel_values, layouts)
        place = self.object(crops)
        objects, styles = self.object_head(place).argmax(1), self.style_head(place).argmax(1)
        readings = [{"layout": layout, "colour": COLOUR_NAMES[colour], "objects": [], "styles": []}
                    for layout, colour in zip(layouts.tolist(), colours.tolist(), strict=True)]  # fmt: skip
        for owner, kind, style in zip(owners.tolist(), objects.tolist(), styles.tolist(), strict=True):
            readings[owner]["objects"].append(kind)
            readings[owner]["styles"].append(self.config.styles[style])
        return readings

    def correct(self, scene: Mapping, reading: Mapping) -> dict[str, list[bool]]:
        """Which statements of a scene's caption a reading bears out: only those that the caption makes.

        `object`: one statement for each object that is named, borne out if all its places show it; `count` and
        `relation`: the layout is right; `colour`; `style` where the caption names one; and `all` of them.
        """
        layout = reading["layout"] == layout_of(scene)
        found = reading["objects"] if layout else [None] * len(objects_of(scene))
        shown = [self.class_of[name] == one for name, one in zip(objects_of(scene), found, strict=True)]
        result = {
            "object": shown if scene["kind"] == "relation" else [all(shown)],
            "colour": [reading["colour"] == scene["colour"]],
        }
        if scene["kind"] != "object":
            result[scene["kind"]] = [layout]
        if scene["style_named"]:
            result["style"] = [all(style == scene["style"] for style in reading["styles"])]
        return {**result, "all": [all(right for statement in result.values() for right in statement)]}
