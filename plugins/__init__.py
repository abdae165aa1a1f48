"""Packaged as labeler_plugins; see setup.cfg."""
