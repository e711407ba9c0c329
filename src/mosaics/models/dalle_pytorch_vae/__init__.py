"""The discrete VAE of DALLE-pytorch."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DallePytorchVAE": "mosaics.models.dalle_pytorch_vae.modeling_dalle_pytorch_vae",
        "DallePytorchVAEConfig": "mosaics.models.dalle_pytorch_vae.configuration_dalle_pytorch_vae",
        "DallePytorchVAEOutput": "mosaics.models.dalle_pytorch_vae.modeling_dalle_pytorch_vae",
    },
)
