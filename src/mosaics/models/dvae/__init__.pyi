"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig as DiscreteVAEConfig
from mosaics.models.dvae.image_processing_dvae import DiscreteVAEImageProcessor as DiscreteVAEImageProcessor
from mosaics.models.dvae.modeling_dvae import DiscreteVAE as DiscreteVAE
from mosaics.models.dvae.modeling_dvae import DiscreteVAEOutput as DiscreteVAEOutput
