"""Show the models side by side: what the app is made of."""
