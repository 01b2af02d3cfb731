"""The same for data sets with boxes: formats, checks, assembly."""
