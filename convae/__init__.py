"""The two autoencoders, their data and a trainer that runs whole epochs on the device. No Ray."""

import os

from convae.errors import tell_interrupts

__version__ = "0.3.0"

tell_interrupts()

# Where a processor lacks AVX-512, TensorFlow leaves oneDNN off unless told otherwise, and then a
# convolutional epoch takes four times as long (benchmarks/LOG.md). It reads this when imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
