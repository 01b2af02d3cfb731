"""Pure solvers: tensors in, tensors out; no files, no logging, no device choice."""
