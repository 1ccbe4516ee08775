"""Isolate git of the tests from the user's repository and configuration.

Otherwise, tests run by a hook or by `git rebase -x` would commit to the user's branch.
"""

import os

for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]
os.environ |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
