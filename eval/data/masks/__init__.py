"""Images with a label a pixel: where they lie, what is checked, how they are read."""
