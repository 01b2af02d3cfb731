"""Who places groups on machines: processes of this one, Slurm, Ray. All they share is a store."""
