"""Checks of what an image tokenizer is given: pictures, and codes."""

import torch


def check_pixels(pixel_values: torch.Tensor, num_channels: int, factor: int, training: bool = False) -> None:
    """Refuses what is not a batch of pictures in [0, 1].

    The range is not read in compiled code, nor in training on an accelerator, which would wait for the device. NaN
    passes in training, where the loss shows it and all processes refuse the step together.

    Args:
        pixel_values: `(B, C, H, W)`, to be checked.
        num_channels: The channels C it must have.
        factor: H and W must be multiples of it.
        training: Whether the model is training.

    Raises:
        ValueError: On a wrong dtype, shape, size or range.
    """
    if not pixel_values.is_floating_point():
        raise ValueError(f"pixel_values must be floating point in [0, 1], got dtype {pixel_values.dtype}.")
    if pixel_values.ndim != 4 or pixel_values.shape[1] != num_channels:
        raise ValueError(
            f"pixel_values must have shape (batch, {num_channels}, height, width), got {tuple(pixel_values.shape)}."
        )
    height, width = pixel_values.shape[2:]
    if height % factor or width % factor or 0 in pixel_values.shape:
        raise ValueError(
            f"The height and width of pixel_values must be positive multiples of {factor}, got {(height, width)}. "
            "Resize or crop first, for example with DiscreteVAEImageProcessor."
        )
    check_range("pixel_values", pixel_values, 0.0, 1.0, training)


def check_range(name: str, values: torch.Tensor, low: float, high: float, training: bool) -> None:
    """Refuses values outside [low, high], and NaN unless training; see [`check_pixels`]."""
    if values.is_meta or torch.compiler.is_compiling() or (training and values.device.type != "cpu"):
        return
    smallest, largest = (float(value) for value in torch.aminmax(values.detach()))
    if smallest < low or largest > high or (not training and smallest != smallest):
        raise ValueError(
            f"{name} must be finite and lie in [{low:g}, {high:g}], got values from {smallest:g} to {largest:g}."
        )


def check_indices(indices: torch.Tensor, num_embeddings: int, axes: tuple[str, ...], name: str = "indices") -> None:
    """Refuses what is not a batch of codes in [0, num_embeddings).

    Args:
        indices: To be checked.
        num_embeddings: Number of codes K.
        axes: Names of the axes it must have, the batch first; a number in a name is the size it must have.
        name: What to call it in the message.

    Raises:
        ValueError: On a wrong dtype, number of axes, size or range.
    """
    sizes_fit = indices.ndim == len(axes) and all(
        not axis.isdigit() or int(axis) == size for axis, size in zip(axes, indices.shape, strict=True)
    )
    if not sizes_fit or indices.numel() == 0 or indices.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{name} must be integers of shape ({', '.join(axes)}), none of them 0, got {indices.dtype} of shape "
            f"{tuple(indices.shape)}."
        )
    if torch.compiler.is_compiling():  # reading a number back would break the graph
        return
    low, high = torch.aminmax(indices)
    if low < 0 or high >= num_embeddings:
        raise ValueError(f"{name} must lie in [0, {num_embeddings}), got values from {int(low)} to {int(high)}.")
