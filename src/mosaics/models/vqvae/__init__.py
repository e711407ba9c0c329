"""The VQ-VAE."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "VQVAE": "mosaics.models.vqvae.modeling_vqvae",
        "VQVAEConfig": "mosaics.models.vqvae.configuration_vqvae",
        "VQVAEOutput": "mosaics.models.vqvae.modeling_vqvae",
    },
)
