"""Every recipe: its first comment is its command, and the script accepts all that it says."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
import yaml

import mosaics
from mosaics.training import TrainingConfig, config_from_settings, parse_arguments

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted((EXAMPLES / "recipes").rglob("*.yaml"))
CONFIGS = {
    "train_dvae": mosaics.DiscreteVAEConfig,
    "train_vqvae": mosaics.VQVAEConfig,
    "train_vqvae2": mosaics.VQVAE2Config,
    "train_audio_vqvae": mosaics.AudioVQVAEConfig,
    "train_pixelcnn": mosaics.PixelCNNConfig,
    "train_wavenet": mosaics.WaveNetConfig,
    "train_dalle": mosaics.DalleTransformerConfig,
}


def script_of(recipe: Path) -> str:
    """The module of the script that the recipe's command runs."""
    name = recipe.relative_to(EXAMPLES.parent).as_posix()
    found = re.findall(rf"^# .*examples/(\S+)\.py --recipe {re.escape(name)}", recipe.read_text(), re.MULTILINE)
    assert len(found) == 1, f"{name} does not begin with its command"
    return found[0].replace("/", ".")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.relative_to(EXAMPLES / "recipes").as_posix())
def test_the_script_accepts_the_recipe(recipe):
    script = importlib.import_module(script_of(recipe))
    settings = yaml.safe_load(recipe.read_text())
    kinds = [script.Arguments]
    if "max_steps" in settings:
        kinds.append(TrainingConfig)
    given = {}
    for arguments in parse_arguments(*kinds, args=["--recipe", str(recipe)]):
        given |= dataclasses.asdict(arguments)
    assert {name: given[name] for name in settings} == settings
    config_class = CONFIGS.get(script_of(recipe))
    if config_class is not None:
        size = {"image_size": settings["image_size"]} if "image_size" in settings else {}
        config = config_from_settings(config_class, settings.get("model"), **size)
        assert all(getattr(config, name) == value for name, value in (settings.get("model") or {}).items())
