"""What happens when small is made smaller: the literature's questions, asked of our own models."""
