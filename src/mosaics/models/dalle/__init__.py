"""The DALL-E transformer: configuration, attention patterns, model and decode loop."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DalleTransformer": "mosaics.models.dalle.modeling_dalle",
        "DalleTransformerConfig": "mosaics.models.dalle.configuration_dalle",
        "DalleTransformerOutput": "mosaics.models.dalle.prior",
    },
)
