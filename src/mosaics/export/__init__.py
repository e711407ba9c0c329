"""Models in forms that need no Mosaics."""

from mosaics.export.remote_code import export_remote_code

__all__ = ["export_remote_code"]
