"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.dalle.configuration_dalle import DalleTransformerConfig as DalleTransformerConfig
from mosaics.models.dalle.modeling_dalle import DalleTransformer as DalleTransformer
from mosaics.models.dalle.prior import DalleTransformerOutput as DalleTransformerOutput
