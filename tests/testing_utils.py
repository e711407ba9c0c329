"""Tiny instances of the real classes, shared by the tests."""
