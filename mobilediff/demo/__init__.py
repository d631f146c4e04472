"""Build the comparison and the examples of the app, read its environment, answer its health check."""
