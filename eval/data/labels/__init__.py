"""Images with several labels, or none: how a source says so, and what is checked."""
