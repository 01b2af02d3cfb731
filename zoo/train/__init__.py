"""Pretrain one backbone with one objective."""
