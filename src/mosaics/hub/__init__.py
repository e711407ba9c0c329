"""Repositories of the Hub: what is downloaded from them, what is uploaded, and what goes wrong."""
