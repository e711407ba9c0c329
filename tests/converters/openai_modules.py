"""A second implementation of OpenAI's dVAE, from its paper and its tensors' names, to compare with and to pickle.

Its classes are pickled under the names of OpenAI's (`dall_e.encoder.Encoder`, ...), whose package is not installed:
`openai_package` puts them into `sys.modules` for as long as something is pickled.
"""

import sys
import warnings
from collections import OrderedDict
from contextlib import contextmanager
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn


class Conv2d(nn.Module):
    def __init__(self, inputs, outputs, kernel):
        super().__init__()
        self.kw = kernel
        self.device = torch.device("cpu")
        self.w = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5)
        self.b = nn.Parameter(torch.randn(outputs) / 4)

    def forward(self, x):
        return F.conv2d(x, self.w, self.b, padding=self.kw // 2)


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernels, num_blocks):
        super().__init__()
        self.post_gain = 1 / num_blocks**2
        self.id_path = nn.Identity() if inputs == outputs else Conv2d(inputs, outputs, 1)
        hidden = outputs // 4
        widths = [inputs, hidden, hidden, hidden, outputs]
        layers = OrderedDict()
        for number, kernel in enumerate(kernels, start=1):
            layers[f"relu_{number}"] = nn.ReLU()
            layers[f"conv_{number}"] = Conv2d(widths[number - 1], widths[number], kernel)
        self.res_path = nn.Sequential(layers)

    def forward(self, x):
        return self.id_path(x) + self.post_gain * self.res_path(x)


class EncoderBlock(Block):
    pass


class DecoderBlock(Block):
    pass


class Half(nn.Module):
    def _groups(self, block, first, widths, kernels, last_layer):
        groups = OrderedDict()
        for number, width in enumerate(widths, start=1):
            layers = OrderedDict(
                block_1=block(first, width, kernels, 2 * len(widths)),
                block_2=block(width, width, kernels, 2 * len(widths)),
            )
            if number < len(widths):
                layers.update([last_layer()])
            groups[f"group_{number}"] = nn.Sequential(layers)
            first = width
        return groups

    def forward(self, x):
        return self.blocks(x)


class Encoder(Half):
    def __init__(self, hidden=8, codes=24, num_groups=4):
        super().__init__()
        widths = [hidden * 2**group for group in range(num_groups)]
        groups = self._groups(EncoderBlock, hidden, widths, (3, 3, 3, 1), lambda: ("pool", nn.MaxPool2d(2)))
        output = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(widths[-1], codes, 1)))
        self.blocks = nn.Sequential(OrderedDict(input=Conv2d(3, hidden, 7), **groups, output=output))


class Decoder(Half):
    def __init__(self, hidden=8, codes=24, width=6, num_groups=4):
        super().__init__()
        widths = [hidden * 2**group for group in reversed(range(num_groups))]
        groups = self._groups(
            DecoderBlock, width, widths, (1, 3, 3, 3), lambda: ("upsample", nn.Upsample(scale_factor=2))
        )
        output = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(hidden, 6, 1)))
        self.blocks = nn.Sequential(OrderedDict(input=Conv2d(codes, width, 1), **groups, output=output))


PLACES = {
    "dall_e.encoder": (Encoder, EncoderBlock),
    "dall_e.decoder": (Decoder, DecoderBlock),
    "dall_e.utils": (Conv2d,),
}


@contextmanager
def openai_package():
    """`dall_e`, importable until the end of the block."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "dall_e"}
    own = [(kind, kind.__module__) for kinds in PLACES.values() for kind in kinds]
    try:
        sys.modules["dall_e"] = ModuleType("dall_e")
        for name, kinds in PLACES.items():
            sys.modules[name] = ModuleType(name)
            for kind in kinds:
                kind.__module__ = name
                setattr(sys.modules[name], kind.__name__, kind)
        yield
    finally:
        for kind, module in own:
            kind.__module__ = module
        for name in ("dall_e", *PLACES):
            sys.modules.pop(name, None)
        sys.modules.update(before)


def save_halves(folder, encoder, decoder, **options):
    """Pickles both as OpenAI did."""
    with openai_package(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the stream form looks for the source of the classes
        torch.save(encoder, folder / "encoder.pkl", **options)
        torch.save(decoder, folder / "decoder.pkl", **options)
    return [folder / "encoder.pkl", folder / "decoder.pkl"]
