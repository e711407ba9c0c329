"""Model cards: the README of a repository of the Hub, written from what is known about a model."""

from mosaics.cards.measurement import Measurement
from mosaics.cards.model_card import model_card

__all__ = ["Measurement", "model_card"]
