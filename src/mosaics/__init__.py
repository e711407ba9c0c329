"""Mosaics: images as mosaics of codebook entries."""
