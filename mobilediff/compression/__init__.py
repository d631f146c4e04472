"""Make a trained network smaller, or find a smaller one."""
