"""The commands of the `streamseg` program: they parse, call and print."""
