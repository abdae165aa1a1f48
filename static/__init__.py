"""Packaged as labeler_static; see setup.cfg."""
