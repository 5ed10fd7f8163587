"""Where a behaviour lives: probes of two builds, by what their activations and weights do."""
