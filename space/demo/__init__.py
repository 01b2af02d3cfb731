"""The few-shot demo: what a visitor may name and upload, the classifier, the head as files."""
