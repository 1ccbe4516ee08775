"""pytest-xdist keeps the tests of a group in one process, which the integration tests need."""

import re
import subprocess
import sys

TESTS = """
import pytest

pytestmark = pytest.mark.xdist_group("one")

@pytest.mark.parametrize("number", range(6))
def test_one(number):
    pass
"""


def test_tests_of_a_group_share_a_process(tmp_path):
    (tmp_path / "test_group.py").write_text(TESTS)
    argv = [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*argv, "--dist", "loadgroup", tmp_path], cwd=tmp_path, capture_output=True, text=True
    )
    workers = re.findall(r"\[(gw\d)\] .*PASSED", done.stdout)
    assert len(workers) == 6
    assert len(set(workers)) == 1
