"""What goes wrong on purpose, and whether the server keeps its promises meanwhile."""
