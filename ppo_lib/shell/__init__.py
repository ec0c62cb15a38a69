"""Around the trainer: the command line, films and TensorBoard."""
