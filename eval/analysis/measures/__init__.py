"""The arithmetic of the analyses: arrays in, numbers out."""
