"""Errors, files, text, images, processes, command lines: used by all, imports nothing of ours."""
