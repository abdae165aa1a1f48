"""The ``ensemble``: what several small models learned from the approvals, pooled by what cross-validation says."""
