"""The parts of the pipeline, one idea each; a checkpoint carries them in one file with it."""
