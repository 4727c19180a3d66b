"""The claims under every reading: what it amounts to, as tables, a figure and a section."""
