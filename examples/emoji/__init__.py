"""The emoji set, the composer of captioned scenes, and the builder of the set."""
