"""What talks to an NVIDIA GPU by PyCUDA: the device and its context, memory with owners."""
