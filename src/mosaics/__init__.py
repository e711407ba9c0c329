"""Mosaics: images as mosaics of codebook entries.

Names are imported when they are first used, so `import mosaics` costs almost nothing by itself. It makes the
models known to transformers (`AutoModel`, `pipeline("text-to-image")`) and diffusers (`DiffusionPipeline`).
"""

from mosaics.lazy_imports import lazy_names
from mosaics.registration import register

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AudioVQVAE": "mosaics.models.audio_vqvae.modeling_audio_vqvae",
        "AudioVQVAEConfig": "mosaics.models.audio_vqvae.configuration_audio_vqvae",
        "AudioVQVAEPipeline": "mosaics.pipelines.audio_vqvae",
        "DallePipelineOutput": "mosaics.pipelines.dalle_output",
        "DallePipeline": "mosaics.pipelines.dalle",
        "DallePipelineConfig": "mosaics.pipelines.configuration_pipeline",
        "DallePytorchTransformer": "mosaics.models.dalle.dalle_pytorch.modeling_dalle_pytorch",
        "DallePytorchTransformerConfig": "mosaics.models.dalle.dalle_pytorch.configuration_dalle_pytorch",
        "DallePytorchVAE": "mosaics.models.dalle_pytorch_vae.modeling_dalle_pytorch_vae",
        "DallePytorchVAEConfig": "mosaics.models.dalle_pytorch_vae.configuration_dalle_pytorch_vae",
        "DalleTransformer": "mosaics.models.dalle.modeling_dalle",
        "DalleTransformerConfig": "mosaics.models.dalle.configuration_dalle",
        "DiscreteVAE": "mosaics.models.dvae.modeling_dvae",
        "DiscreteVAEConfig": "mosaics.models.dvae.configuration_dvae",
        "DiscreteVAEImageProcessor": "mosaics.models.dvae.image_processing_dvae",
        "PixelCNN": "mosaics.models.pixelcnn.modeling_pixelcnn",
        "PixelCNNConfig": "mosaics.models.pixelcnn.configuration_pixelcnn",
        "PreTrainedModel": "transformers",  # diffusers looks for the base class in the library model_index.json names
        "VQGAN": "mosaics.models.vqgan.modeling_vqgan",
        "VQGANConfig": "mosaics.models.vqgan.configuration_vqgan",
        "VQVAE": "mosaics.models.vqvae.modeling_vqvae",
        "VQVAE2": "mosaics.models.vqvae2.modeling_vqvae2",
        "VQVAE2Config": "mosaics.models.vqvae2.configuration_vqvae2",
        "VQVAEConfig": "mosaics.models.vqvae.configuration_vqvae",
        "VQVAEPipeline": "mosaics.pipelines.vqvae",
        "VQVAEPipelineOutput": "mosaics.pipelines.vqvae_output",
        "WaveNet": "mosaics.models.wavenet.modeling_wavenet",
        "WaveNetConfig": "mosaics.models.wavenet.configuration_wavenet",
        "default_checkpoint": "mosaics.pipelines.default",
        "pipeline": "transformers",
    },
)

register()
