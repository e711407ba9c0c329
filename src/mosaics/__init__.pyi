"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from transformers import PreTrainedModel as PreTrainedModel
from transformers import pipeline as pipeline

from mosaics.models.audio_vqvae.configuration_audio_vqvae import AudioVQVAEConfig as AudioVQVAEConfig
from mosaics.models.audio_vqvae.modeling_audio_vqvae import AudioVQVAE as AudioVQVAE
from mosaics.models.dalle.configuration_dalle import DalleTransformerConfig as DalleTransformerConfig
from mosaics.models.dalle.dalle_pytorch.configuration_dalle_pytorch import (
    DallePytorchTransformerConfig as DallePytorchTransformerConfig,
)
from mosaics.models.dalle.dalle_pytorch.modeling_dalle_pytorch import (
    DallePytorchTransformer as DallePytorchTransformer,
)
from mosaics.models.dalle.modeling_dalle import DalleTransformer as DalleTransformer
from mosaics.models.dalle_pytorch_vae.configuration_dalle_pytorch_vae import (
    DallePytorchVAEConfig as DallePytorchVAEConfig,
)
from mosaics.models.dalle_pytorch_vae.modeling_dalle_pytorch_vae import DallePytorchVAE as DallePytorchVAE
from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig as DiscreteVAEConfig
from mosaics.models.dvae.image_processing_dvae import DiscreteVAEImageProcessor as DiscreteVAEImageProcessor
from mosaics.models.dvae.modeling_dvae import DiscreteVAE as DiscreteVAE
from mosaics.models.pixelcnn.configuration_pixelcnn import PixelCNNConfig as PixelCNNConfig
from mosaics.models.pixelcnn.modeling_pixelcnn import PixelCNN as PixelCNN
from mosaics.models.vqgan.configuration_vqgan import VQGANConfig as VQGANConfig
from mosaics.models.vqgan.modeling_vqgan import VQGAN as VQGAN
from mosaics.models.vqvae.configuration_vqvae import VQVAEConfig as VQVAEConfig
from mosaics.models.vqvae.modeling_vqvae import VQVAE as VQVAE
from mosaics.models.vqvae2.configuration_vqvae2 import VQVAE2Config as VQVAE2Config
from mosaics.models.vqvae2.modeling_vqvae2 import VQVAE2 as VQVAE2
from mosaics.models.wavenet.configuration_wavenet import WaveNetConfig as WaveNetConfig
from mosaics.models.wavenet.modeling_wavenet import WaveNet as WaveNet
from mosaics.pipelines.audio_vqvae import AudioVQVAEPipeline as AudioVQVAEPipeline
from mosaics.pipelines.configuration_pipeline import DallePipelineConfig as DallePipelineConfig
from mosaics.pipelines.dalle import DallePipeline as DallePipeline
from mosaics.pipelines.dalle_output import DallePipelineOutput as DallePipelineOutput
from mosaics.pipelines.default import default_checkpoint as default_checkpoint
from mosaics.pipelines.vqvae import VQVAEPipeline as VQVAEPipeline
from mosaics.pipelines.vqvae_output import VQVAEPipelineOutput as VQVAEPipelineOutput

__version__: str
