"""Model cards: the README of a repository of the Hub, written from what is known about a model."""

from mosaics.cards.converted_card import WeightsOrigin, converted_card
from mosaics.cards.measurement import Measurement
from mosaics.cards.model_card import model_card

__all__ = ["Measurement", "WeightsOrigin", "converted_card", "model_card"]
