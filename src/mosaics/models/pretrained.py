"""The base class of every Mosaics model."""

from transformers import PreTrainedModel


class MosaicsPreTrainedModel(PreTrainedModel):
    """Base of every Mosaics model: a `PreTrainedModel` that refuses damaged or foreign weights."""
