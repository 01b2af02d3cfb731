"""Full-network transfer: a grid of trainings that survive an interruption."""
