"""Results -> scores -> matrix -> board: pure."""
