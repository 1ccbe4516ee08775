"""The pages in a browser: fit for every screen, reader, keyboard and pointer."""

import json
import re
import shutil
import subprocess
import sys
from html import escape, unescape
from pathlib import Path

import pytest
from matplotlib.image import imread

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import nights_of
import page_runs
import site_of

from labctl.site import index
from labctl.site.build import build
from labctl.site.types import Manifest, NightEntry, Nights, RunEntry

# No window is narrower than 500 without a screen, so that the phone is a frame.
FRAME = """<iframe name="{name}" srcdoc="{page}"
 style="border:0;width:{width}px;height:2400px;color-scheme:light dark"></iframe>"""
WHOLE = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,"><body style="margin:0">{frames}<pre id="seen"></pre>"""
DARK = {"light": 1, "dark": 0}  # preferredColorScheme of blink
FRAMES = {
    "light": {"run": 390, "nightly": 390},
    "dark": {"run": 1440, "hostile": 390, "index": 390, "nightly": 1440},
}  # width by page
AXE = Path(sys.prefix) / "node_modules/axe-core/axe.min.js"
CHECKS = Path(__file__).with_name("page_checks.js")


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
        timeout=240,
        check=True,
    )


@pytest.fixture(scope="module")
def texts():
    results = tuple(f"experiment{number}: 1.40 times as fast" for number in range(9))
    kept = [RunEntry(run=site_of.run_id(n), key="", begun="now", results=results) for n in range(2)]
    night = NightEntry(night="2026-10-17", run=kept[0].run, kernels=("a",), findings=())
    manifest = Manifest(runs=tuple(kept), nights=Nights(subject="no change", entries=(night,)))
    pages = {"run": page_runs.page(), "hostile": page_runs.hostile_page()}
    return {**pages, "index": index.render(manifest), "nightly": nights_of.page()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("page")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    for width in (390, 1440):
        frame = FRAME.format(name="run", width=width, page=escape(texts["run"]))
        (folder / f"{width}.html").write_text(WHOLE.format(frames=frame))
    return folder


@pytest.mark.parametrize("name", ["run", "hostile"])
def test_a_page_has_no_error_and_runs_no_script_of_others(folder, name):
    done = browse(folder / f"{name}.html", 1440, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert 'role="application"' in done.stdout  # the page's own script ran
    assert "<script>alert" not in done.stdout.replace(page_runs.HOSTILE, "")


@pytest.mark.parametrize("name", ["run", "nightly"])
def test_a_page_is_whole_without_scripts(folder, name):
    page = folder / f"without-{name}.html"
    text = (folder / f"{name}.html").read_text()
    # Not a sandboxed frame, whose own process may draw after the screenshot is taken.
    policy = "<meta http-equiv='Content-Security-Policy' content=\"script-src 'none'\">"
    assert "<head>" in text
    page.write_text(text.replace("<head>", f"<head>{policy}", 1))
    image = page.with_suffix(".png")
    browse(page, 1440, f"--screenshot={image}")
    pixels = imread(image)[:, :1440, :3]
    upper = pixels[: len(pixels) // 2]  # the nightly page is short
    assert (abs(upper.mean(axis=2) - pixels[5, 2].mean()) > 0.3).mean() > 0.001
    # What a script would show or open is there: no element is hidden, and no text is in scripts.
    body = re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.DOTALL)
    assert " hidden" not in re.sub(r">[^<]*<", "><", body)
    assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", body))


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", DARK)
def test_it_is_drawn_light_and_dark(folder, width, scheme):
    image = folder / f"{scheme}-{width}.png"
    browse(
        folder / f"{width}.html",
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


def with_checks(text):
    """Return a page that also loads axe and the checks, which its policy would refuse."""
    text, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert count == 1
    return f'{text}<script src="{AXE.as_uri()}"></script><script src="{CHECKS.as_uri()}"></script>'


@pytest.fixture(scope="module", params=DARK)
def seen(request, folder, texts):
    frames = [
        FRAME.format(name=name, width=width, page=escape(with_checks(texts[name])))
        for name, width in FRAMES[request.param].items()
    ]
    page = folder / f"seen-{request.param}.html"
    page.write_text(WHOLE.format(frames="".join(frames)))
    scheme = f"--blink-settings=preferredColorScheme={DARK[request.param]}"
    done = browse(page, 1440, scheme, "--virtual-time-budget=120000", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    text = unescape(re.search(r'<pre id="seen">(.*)</pre>', done.stdout, re.DOTALL)[1])
    found = dict(map(json.loads, text.splitlines()))
    assert len(found) == len(frames)
    return found


needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="`make node` installs axe-core")


@needs_axe
def test_axe_finds_nothing_and_nothing_scrolls_sideways(seen):
    for name, each in seen.items():
        assert each["violations"] == [], name
        assert each["rules"] > 15, name
        assert each["overflow"] <= 0, name


@needs_axe
def test_a_table_sorts_and_filters(seen):
    original, up, down, again = seen["run"]["sorted"]
    ordered = sorted(original, key=float)
    assert up == ["ascending", ordered]
    assert down == ["descending", ordered[::-1]]
    assert again == [None, original]
    assert seen["run"]["filtered"] == ["2 of 9 rows", 2]


@needs_axe
def test_the_findings_of_nightly_runs_sort(seen):
    original, up, down, _ = seen["nightly"]["sorted"]
    assert up == ["ascending", sorted(original)]
    assert down == ["descending", sorted(original, reverse=True)]
    assert len(set(original)) == 7


@needs_axe
def test_values_are_read_by_keyboard_and_by_pointer(seen):
    each = seen["run"]
    tip, status = each["first"]
    assert re.search(r"ratio 0\.[78]", tip)
    assert status == tip
    assert each["second"] not in (tip, None)
    assert each["escaped"] is None
    assert "stock (A/A)" in each["pointed"]
    assert each["left"] is None
    values = [re.search(r"batch_pages=(\d+): ratio", text)[1] for text in each["heat"]]
    assert values == ["16384", "16384", "65536"]
    assert "max_active=2" in each["heat"][1]


@needs_axe
def test_boxes_of_a_flame_graph_are_read_by_keyboard_and_by_pointer(seen):
    tip, status, second, pointed = seen["run"]["flame"]
    assert re.match("all: .* in stock, .* in patched", tip)
    assert status == tip
    assert second.startswith("entry_SYSCALL_64_after_hwframe: ")
    assert re.match(r"take_planted_lock: .*, changed; ", pointed)


@needs_axe
def test_a_link_to_a_console_opens_it(seen):
    assert seen["run"]["opened"] == [False, True]


RUNS, NIGHTS = 50, 30


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    lab = tmp_path_factory.mktemp("site")
    for number in range(RUNS):
        # Without a good sample a page has no plots, which take most of its time.
        site_of.store_run(lab, number, status="ok" if number == 7 else "panic")
    site_of.store_nights(lab / "nightly", NIGHTS)
    return build(lab / "public", lab / ".labctl" / "runs", lab / "nightly").index


SEARCHES = """<script>addEventListener("load", () => {
  const input = document.querySelector("input");
  const found = SEARCHED.map((text) => {
    input.value = text;
    input.dispatchEvent(new Event("input"));
    return [...document.querySelectorAll("tbody tr:not([hidden]) th")].map((th) => th.textContent);
  });
  document.body.append(JSON.stringify(found), "END");
});</script>"""


def test_a_site_of_many_runs_and_nights_opens_and_its_search_finds_them(site):
    done = browse(site, 1440, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count('<th scope="row"') == RUNS + NIGHTS
    words = ["series-v33", "2026-11-02 05:00", "2026-10-17", f"{7:012x}", "no such run"]
    text = re.sub(r"<meta http-equiv[^>]*>", "", site.read_text())
    searched = site.with_name("searched.html")
    searched.write_text(text + SEARCHES.replace("SEARCHED", json.dumps(words)))
    done = browse(searched, 1440, "--dump-dom")
    searched.unlink()
    kernel, date, night, commit, none = json.loads(
        re.search(r"(\[\[.*\]\])END", done.stdout, re.DOTALL)[1]
    )
    assert kernel == [site_of.run_id(33)]
    assert date == [site_of.run_id(29)]
    assert night == ["2026-10-17"]
    assert commit == [site_of.run_id(7)]
    assert none == []
