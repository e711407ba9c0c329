"""The discrete VAE of DALL-E."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DiscreteVAE": "mosaics.models.dvae.modeling_dvae",
        "DiscreteVAEConfig": "mosaics.models.dvae.configuration_dvae",
        "DiscreteVAEImageProcessor": "mosaics.models.dvae.image_processing_dvae",
        "DiscreteVAEOutput": "mosaics.models.dvae.modeling_dvae",
    },
)
