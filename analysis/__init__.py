"""Reads a run folder's tables and draws them. Imports neither TensorFlow nor Ray."""
