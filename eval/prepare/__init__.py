"""Official downloads -> canonical Parquet."""
