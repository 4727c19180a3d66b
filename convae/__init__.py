"""The two autoencoders, their data and a trainer that runs whole epochs on the device. No Ray."""

__version__ = "0.1.0"
