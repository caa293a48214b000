"""Labelled pictures: where data sets keep them, how they are read, what may be wrong with them."""
