"""Files to labels: models of any backend, tagging, output files, ONNX export."""
