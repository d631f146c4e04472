"""Export checkpoints as graphs that run without PyTorch: on telephones, in browsers."""

from mobilediff.threads import let_threads_sleep

let_threads_sleep()  # before torch is imported, so that both sides of a benchmark wait alike
