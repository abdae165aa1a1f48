"""Plugins to begin with, packaged as labeler_examples; see setup.cfg. ``labeler plugin new`` copies from here."""
