"""What every training here shares: setup and grid, augmentation, pixels, views, checkpoints."""
