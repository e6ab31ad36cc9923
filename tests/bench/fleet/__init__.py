"""A fleet of SSH servers that answer the engine's programs without forking, so that what is measured is the caller."""
