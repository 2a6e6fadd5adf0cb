"""An algorithm, a task and a data format for damorl."""
