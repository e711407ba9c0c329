"""The VQ-VAE-2."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "VQVAE2": "mosaics.models.vqvae2.modeling_vqvae2",
        "VQVAE2Config": "mosaics.models.vqvae2.configuration_vqvae2",
        "VQVAE2Output": "mosaics.models.vqvae2.modeling_vqvae2",
    },
)
