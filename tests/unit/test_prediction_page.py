"""docs/explanation/prediction.md is what `python docs/predict` writes."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_that_of_its_inputs():
    folder = ROOT / "docs" / "predict"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("predict_page", folder / "__main__.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    sources = module.read()
    assert module.page(sources) == module.PAGE.read_text()
    assert [source.inputs.run for source in sources] == list(module.RUNS)
