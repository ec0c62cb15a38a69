"""``python -m ppo_lib``: the command line of `ppo_lib.shell.command`."""

import sys

from ppo_lib.shell.command import main

if __name__ == "__main__":
    sys.exit(main())
