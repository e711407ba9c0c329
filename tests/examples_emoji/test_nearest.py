"""The nearest training scene is the one that brute force finds, and a copy is seen."""

import torch

from emoji import nearest
from emoji.scenes import EmojiScenes


def test_the_nearest_scene_and_its_distance(monkeypatch):
    scenes = EmojiScenes("train", length=25, styles=["noto"], groups=["animals & nature"])
    everything = torch.stack([scenes[number]["pixel_values"] for number in range(25)])
    pictures = torch.cat([everything[[17, 3]], torch.rand(4, 3, 64, 64), everything[[9]] * 0.5 + 0.25])
    monkeypatch.setattr(nearest, "SCENES_OF_A_BATCH", 7)
    psnr, number = nearest.nearest_scenes(pictures, scenes)
    squares = (pictures[:, None] - everything[None]).square().mean(dim=(2, 3, 4))
    assert torch.equal(number, squares.argmin(dim=1)) and number[:2].tolist() == [17, 3]
    torch.testing.assert_close(psnr[2:], -10 * squares.amin(dim=1)[2:].log10(), rtol=1e-3, atol=1e-2)
    assert (psnr[:2] > 60).all() and (psnr[2:6] < nearest.NEAR_COPY_PSNR).all()
