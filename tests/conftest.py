"""What holds for every test: git of the tests is nobody's but theirs.

Tests that run in a hook, or by `git rebase -x`, would else commit into the user's branch.
"""

import os

for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]
os.environ |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
