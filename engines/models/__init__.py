"""The shipped ONNX files and their cards."""
