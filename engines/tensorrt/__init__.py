"""TensorRT: plans built, proven, kept and run.

`tensorrt` and `pycuda` are imported where they are used and never at import, so that a machine
without an NVIDIA GPU can read passports and say what is missing.
"""
