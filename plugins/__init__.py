"""The built-in task plugins, packaged as labeler_plugins; see setup.cfg."""

ORDER = ("sentiment", "emotion", "keywords", "categories", "summary_polarity", "summary_category", "usage")
"""The order in which their tasks stand on pages; a plugin that is not named comes after, by name."""
