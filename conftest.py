"""Kernels and tests run alike, whether `make test` or a plain `pytest --nbval` starts them."""

import os

from execute import KERNEL_ENVIRONMENT

os.environ.update(KERNEL_ENVIRONMENT)
