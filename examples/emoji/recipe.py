"""The scenes that the emoji recipes train on, for what measures or shows their results."""

from pathlib import Path

import yaml

from emoji.scenes import EmojiScenes

RECIPE = Path(__file__).parents[1] / "recipes" / "emoji" / "dalle.yaml"


def recipe_scenes(split: str, length: int | None = None, **options) -> EmojiScenes:
    """The first scenes of a split, drawn with the `dataset_options` of the transformer's recipe.

    Args:
        split: `"train"`, `"test"` or `"test_concepts"`.
        length: Number of scenes; that of `EmojiScenes` if not given.
        **options: Arguments of `EmojiScenes` that go before the recipe's, such as `size`.
    """
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["dataset_options"]
    return EmojiScenes(split, **{**settings, "length": length, **options})
