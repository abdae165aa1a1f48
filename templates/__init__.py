"""Packaged as labeler_templates; see setup.cfg."""
