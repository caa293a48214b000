"""`streamseg bench`: how fast, how late, how steadily, and what has changed since."""
