"""Queries and a gallery: images of the same thing, which one is to find by the other."""
