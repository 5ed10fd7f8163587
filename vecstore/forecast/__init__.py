"""Whether behaviours will compose, from a few kilobytes that travel with each vector."""
