"""A checkout -> a Hugging Face Space."""
