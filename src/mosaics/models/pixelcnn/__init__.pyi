"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.pixelcnn.configuration_pixelcnn import PixelCNNConfig as PixelCNNConfig
from mosaics.models.pixelcnn.modeling_pixelcnn import PixelCNN as PixelCNN
from mosaics.models.pixelcnn.modeling_pixelcnn import PixelCNNOutput as PixelCNNOutput
