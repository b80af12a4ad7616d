"""Export of recognizers to ONNX, and transcription with exported recognizers."""
