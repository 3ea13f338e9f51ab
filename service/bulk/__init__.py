"""Tag a whole corpus with one variant: files in, the service's answers out."""
