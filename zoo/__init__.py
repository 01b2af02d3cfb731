"""Small models pretrained here, one for each objective."""
