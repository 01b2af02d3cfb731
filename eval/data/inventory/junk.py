"""Names that programs leave behind: no class, no image, whatever they hold."""

from __future__ import annotations

# In lower case. Names that begin with a dot are left out as well: .DS_Store, ._photo.jpg,
# .ipynb_checkpoints, .Trashes.
_NAMES = {
    "@eadir", "#recycle", "#snapshot",  # Synology
    "@recycle", "@recently-snapshot",  # QNAP
    "__macosx", "icon\r", "network trash folder",  # macOS
    "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
    "lost+found", "__pycache__",
}  # fmt: skip


JUNK = "hidden, or left behind by a program"  # why such a file is left out
NO_IMAGES = "not images"


def is_junk(name: str) -> bool:
    """Whether a file or folder of that name was left by a program, or is hidden."""
    return name.startswith(".") or name.lower() in _NAMES
