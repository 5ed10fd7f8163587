"""From a persona to a checkpoint: plan, delta, build; and what differs between two."""
