"""Share options, data and validation among the stages of generators and among those of decoders."""
