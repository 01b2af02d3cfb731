"""Task string -> images in canonical order; `load` is the one door."""
