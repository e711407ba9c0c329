"""Every card has the header and the headings that the Hub and its readers need."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from mosaics.cards import WeightsOrigin, converted_card, model_card
from mosaics.pipelines.default import CHECKPOINTS
from testing_utils import tiny_dvae

CARDS = Path(__file__).parents[1] / "model_cards"
TAGS = ("text-to-image", "unconditional-image-generation")
HEADINGS = ["Use", "Data", "Training", "Evaluation", "Limits", "Citation"]


@pytest.mark.parametrize("path", sorted(CARDS.glob("*.md")), ids=lambda path: path.stem)
def test_a_card_has_its_header_and_headings(path):
    card = ModelCard.load(path)
    assert card.data.library_name == "mosaics" and card.data.license and card.data.pipeline_tag in TAGS
    assert card.data.datasets and card.data.metrics
    assert [line[3:] for line in card.text.splitlines() if line.startswith("## ")] == HEADINGS


def test_a_generated_card_has_the_headings_of_the_template():
    origin = WeightsOrigin("dvae", "A dVAE.", "https://example.com", "mit", "It is free.", ("a.pt",), "0.1")
    for card in (model_card(tiny_dvae(), "user/dvae"), converted_card([tiny_dvae()], origin)):
        assert [line[3:] for line in card.text.splitlines() if line.startswith("## ")] == HEADINGS


def test_every_embedded_checkpoint_has_a_card_and_fits_the_package():
    folders = [folder for folder in CHECKPOINTS.iterdir() if folder.is_dir()]
    assert folders
    for folder in folders:
        assert (CARDS / f"{folder.name}.md").is_file()
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 40e6
