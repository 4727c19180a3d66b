"""Decides which trials to train, lets Ray Tune run them, and records what they measured."""

from convae.errors import tell_interrupts

tell_interrupts()
