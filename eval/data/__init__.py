"""Task string -> images in canonical order: each ``locate`` says where they lie, ``load`` reads."""
