"""Folders that several machines share: any that fsspec opens, each with a folder of this disk."""
