"""The page of a report in a browser: no error, no sideways scrolling, light and dark."""

import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path

import pytest
from matplotlib.image import imread

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from samples import replace
from test_page import LEVELS, everything, rendered
from test_reports import patched

# No window is narrower than 500 without a screen, so that the phone is a frame.
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,"><body style="margin:0">
<iframe style="border:0;width:{width}px;height:2400px;color-scheme:light dark" srcdoc="{page}"
 onload="document.title = 'wide ' + this.contentDocument.documentElement.scrollWidth"></iframe>"""
DARK = {"light": 1, "dark": 0}  # preferredColorScheme of blink


def browse(page, width, *words):
    browser = shutil.which("chromium")
    assert browser, "`make packages` installs chromium"
    return subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={page.parent / 'profile'}",
            f"--window-size={width},2400",
            "--enable-logging=stderr",
            *words,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    cells = (patched(1 + level / 20, setting={"max_active": level}) for level in LEVELS)
    samples = [
        replace(sample, measurements={"pages_per_node": [196608] * 4})
        for sample in everything(*cells)
    ]
    text = rendered(samples)
    folder = tmp_path_factory.mktemp("page")
    for width in (390, 1440):
        frame = FRAME.format(width=width, page=escape(text))
        (folder / f"{width}.html").write_text(frame)
    return folder


@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_the_screen_and_has_no_error(pages, width):
    done = browse(pages / f"{width}.html", width, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    found = re.search(r"<title>wide (\d+)</title>", done.stdout)
    assert int(found[1]) == width


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", DARK)
def test_it_is_drawn_light_and_dark(pages, width, scheme):
    image = pages / f"{scheme}-{width}.png"
    browse(
        pages / f"{width}.html",
        width,
        f"--blink-settings=preferredColorScheme={DARK[scheme]}",
        f"--screenshot={image}",
    )
    pixels = imread(image)[:, :width, :3]
    background = pixels[5, 2].mean()
    assert (background < 0.2) == (scheme == "dark")
    # Text and plots stand out, and there are some in the upper and the lower half.
    for half in (pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]):
        contrast = abs(half.mean(axis=2) - background)
        assert 0.001 < (contrast > 0.3).mean() < 0.5
