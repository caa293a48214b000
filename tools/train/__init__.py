"""`streamseg train`: labelled pictures in, a network that `streamseg run` takes out."""
