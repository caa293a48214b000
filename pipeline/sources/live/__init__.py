"""Live sources: network streams and cameras, read by a process of their own.

A read of FFmpeg that waits for the network cannot be interrupted, and a container that has run into
a time-out may never recover. What can be ended at any moment is a process. So a child
(`reader.py`) opens, demuxes and decodes, and hands pictures over in shared memory; `source.py`
watches it, kills it when it is silent, and starts another.
"""
