"""The book's own: its checks, its figures, and the experiment that grows through it."""
