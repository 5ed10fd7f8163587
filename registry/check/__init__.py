"""Is it sound, and what is needed? fsck, repair and gc, over one reading of everything reachable."""
