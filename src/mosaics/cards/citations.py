"""The papers behind the models, as BibTeX."""

DALLE = """@inproceedings{ramesh2021zero,
  title={Zero-Shot Text-to-Image Generation},
  author={Ramesh, Aditya and Pavlov, Mikhail and Goh, Gabriel and Gray, Scott and Voss, Chelsea and Radford, Alec and Chen, Mark and Sutskever, Ilya},
  booktitle={International Conference on Machine Learning},
  year={2021}
}"""  # noqa: E501 - a list of authors is one line

VQVAE = """@inproceedings{vandenoord2017neural,
  title={Neural Discrete Representation Learning},
  author={van den Oord, Aaron and Vinyals, Oriol and Kavukcuoglu, Koray},
  booktitle={Advances in Neural Information Processing Systems},
  year={2017}
}"""

VQVAE2 = """@inproceedings{razavi2019generating,
  title={Generating Diverse High-Fidelity Images with VQ-VAE-2},
  author={Razavi, Ali and van den Oord, Aaron and Vinyals, Oriol},
  booktitle={Advances in Neural Information Processing Systems},
  year={2019}
}"""

PIXELCNN = """@inproceedings{vandenoord2016conditional,
  title={Conditional Image Generation with PixelCNN Decoders},
  author={van den Oord, Aaron and Kalchbrenner, Nal and Vinyals, Oriol and Espeholt, Lasse and Graves, Alex and Kavukcuoglu, Koray},
  booktitle={Advances in Neural Information Processing Systems},
  year={2016}
}"""  # noqa: E501 - a list of authors is one line

WAVENET = """@article{vandenoord2016wavenet,
  title={WaveNet: A Generative Model for Raw Audio},
  author={van den Oord, Aaron and Dieleman, Sander and Zen, Heiga and Simonyan, Karen and Vinyals, Oriol and Graves, Alex and Kalchbrenner, Nal and Senior, Andrew and Kavukcuoglu, Koray},
  journal={arXiv preprint arXiv:1609.03499},
  year={2016}
}"""  # noqa: E501 - a list of authors is one line

VQGAN = """@inproceedings{esser2021taming,
  title={Taming Transformers for High-Resolution Image Synthesis},
  author={Esser, Patrick and Rombach, Robin and Ommer, Bj{\\"o}rn},
  booktitle={Conference on Computer Vision and Pattern Recognition},
  year={2021}
}"""
