"""The discrete VAE of DALL-E."""

from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig
from mosaics.models.dvae.image_processing_dvae import DiscreteVAEImageProcessor
from mosaics.models.dvae.modeling_dvae import DiscreteVAE, DiscreteVAEOutput

__all__ = ["DiscreteVAE", "DiscreteVAEConfig", "DiscreteVAEImageProcessor", "DiscreteVAEOutput"]
