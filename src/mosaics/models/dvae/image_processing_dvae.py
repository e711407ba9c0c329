"""Pictures to the pixel tensors of a DiscreteVAE."""

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling


class DiscreteVAEImageProcessor(PilBackend):
    """Resizes the shorter side, crops the centre, and gives `pixel_values` `(B, 3, size, size)` in [0, 1].

    Transparent pictures are composited on white. Save it beside the weights and load it with `AutoImageProcessor`.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 (the form the library expects)
    resample = PILImageResampling.LANCZOS
    size = {"shortest_edge": 256}  # noqa: RUF012 - the class attributes are transformers' way to name defaults
    crop_size = {"height": 256, "width": 256}  # noqa: RUF012 (the form the library expects)
    default_to_square = False
    do_resize = True
    do_center_crop = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = False
    do_convert_rgb = True

    def convert_to_rgb(self, image, input_data_format=None) -> np.ndarray:
        """RGB with transparency composited on white; arrays and tensors pass unchanged."""
        if not isinstance(image, Image.Image):
            return super().convert_to_rgb(image, input_data_format=input_data_format)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))


__all__ = ["DiscreteVAEImageProcessor"]
