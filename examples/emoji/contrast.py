"""Emoji scenes in groups that differ in one statement of their captions: what a CLIP has to tell apart.

Scenes drawn one by one differ in nearly everything, so a model that sees the colour and the layout already knows most
captions of a batch from each other. CLIP then ranks candidates that all have the right colour and layout by chance.
Within a group only one thing is another: an object, the order, the relation, the number, the colour or the style.
"""

from collections.abc import Callable, Sequence

from .scenes import COLOURS, COUNTS, RELATIONS, Draws, EmojiScenes
from .splits import held_out

# How often a scene of each kind differs from the first of its group in what.
CHANGES = {
    "object": {"object": 0.75, "colour": 0.15, "style": 0.10},
    "relation": {"object": 0.35, "other": 0.35, "order": 0.10, "relation": 0.10, "colour": 0.10},
    "count": {"object": 0.70, "count": 0.20, "colour": 0.10},
}


class ContrastScenes(EmojiScenes):
    """Groups of captioned scenes; item `i` is a list of `group_size` samples as [`EmojiScenes`] gives them.

    The first sample of a group is scene `i` of `EmojiScenes`; each other one is a scene that differs from it in one
    statement, by the shares of `CHANGES`, and no two are the same. Training groups show nothing that is held out.

    Args:
        split: As for `EmojiScenes`.
        size: As for `EmojiScenes`.
        group_size: Samples of a group, at least 2.
        **options: Further arguments of `EmojiScenes`; `length` is the number of groups.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(self, split: str = "train", size: int = 64, *, group_size: int = 8, **options) -> None:
        super().__init__(split, size, **options)
        if not isinstance(group_size, int) or group_size < 2:
            raise ValueError(f"group_size must be an integer of at least 2, got {group_size!r}.")
        self.group_size = group_size

    def __getitem__(self, index: int) -> list[dict]:
        return self.samples(self.describe_group(index))

    def __getitems__(self, indices: Sequence[int]) -> list[list[dict]]:
        return [self[index] for index in indices]

    def describe_group(self, index: int) -> list[tuple[dict, str]]:
        """The scenes and captions of group `index`, without their pictures."""
        first, caption = self.describe(index)
        draws = Draws(self.seed, self.split, "contrast", index % self.length)
        group, seen = [(first, caption)], {_statements(first)}
        for _ in range(10_000):
            if len(group) == self.group_size:
                return group
            scene = self._changed(first, draws)
            if _statements(scene) in seen or (self.split == "train" and scene["held_out"]):
                continue
            seen.add(_statements(scene))
            group.append((scene, self.caption(scene, draws)))
        raise RuntimeError(f"Scene {index} has fewer than {self.group_size - 1} neighbours: take a lower group_size.")

    def _changed(self, scene: dict, draws: Draws) -> dict:
        """A scene that differs in one statement; it may be the same by chance."""
        pool = self.concepts_of(scene["style"])
        pick: dict[str, Callable[[], dict]] = {
            "object": lambda: {"object": draws.pick([name for name in pool if name != scene["other"]])},
            "other": lambda: {"other": draws.pick([name for name in pool if name != scene["object"]])},
            "order": lambda: {"object": scene["other"], "other": scene["object"]},
            "relation": lambda: {"relation": draws.pick(RELATIONS)},
            "count": lambda: {"count": draws.pick(COUNTS)},
            "colour": lambda: {"colour": draws.pick(list(COLOURS))},
            "style": lambda: self._other_style(scene, draws),
        }
        changed = {**scene, **pick[draws.weighted(CHANGES[scene["kind"]])]()}
        return {**changed, "held_out": " ".join(held_out(changed))}

    def _other_style(self, scene: dict, draws: Draws) -> dict:
        """Another style if the caption says which, and if there is such a picture."""
        styles = [style for style in self.styles if scene["object"] in self.concepts_of(style)]
        return {"style": draws.pick(styles)} if scene["style_named"] and styles else {}


def _statements(scene: dict) -> tuple:
    """What tells scenes of a group apart."""
    return tuple(scene[name] for name in ("object", "other", "relation", "count", "colour", "style"))
