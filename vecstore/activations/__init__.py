"""What goes on inside a running model: read at named places, and steered there."""
