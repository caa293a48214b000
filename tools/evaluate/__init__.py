"""`streamseg evaluate`: how well a model's labels agree with the truth."""
