"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.vqgan.configuration_vqgan import VQGANConfig as VQGANConfig
from mosaics.models.vqgan.modeling_vqgan import VQGAN as VQGAN
from mosaics.models.vqgan.modeling_vqgan import VQGANOutput as VQGANOutput
