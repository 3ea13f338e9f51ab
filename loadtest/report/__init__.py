"""A comparison as people read it: the verdict first, then tables and pictures. Pure text."""
