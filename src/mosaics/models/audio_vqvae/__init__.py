"""The VQ-VAE of sound."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AudioVQVAE": "mosaics.models.audio_vqvae.modeling_audio_vqvae",
        "AudioVQVAEConfig": "mosaics.models.audio_vqvae.configuration_audio_vqvae",
        "AudioVQVAEOutput": "mosaics.models.audio_vqvae.modeling_audio_vqvae",
    },
)
