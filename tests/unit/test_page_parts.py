"""The parts of a page: tables, heat maps, values of points, consoles."""

import re
from html import unescape
from html.parser import HTMLParser

import page_runs
import pytest
from samples import replace

from labctl.nightly import plots
from labctl.nightly.types import CellTrend, NightlyValue, SegmentStart
from labctl.reports import consoles, grid, heat, page, svg
from labctl.reports.grid import Entry
from labctl.runs.folder import RunFolder


class Parsed(HTMLParser):
    """The elements of a page, each with its attributes, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text():
    return page_runs.page()


@pytest.fixture(scope="module")
def hostile():
    return Parsed(page_runs.hostile_page())


def test_hostile_text_stays_text(hostile):
    assert len(hostile.all("script")) == 1
    assert not hostile.all("img")
    links = [each["href"] for each in hostile.all("a")]
    assert all(re.match(r"#[\w-]+$|runs/", link) for link in links)
    names = {name for _, attributes in hostile.elements for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    assert page_runs.HOSTILE in "".join(hostile.text)


def test_ids_are_unique_and_references_have_a_target(text, hostile):
    for parsed in (Parsed(text), hostile):
        ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        links = [a.get("href") or a.get("xlink:href") or "" for _, a in parsed.elements]
        assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_every_table_is_readable_without_a_script(text):
    parsed = Parsed(text)
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    labels = [each["aria-label"] for each in parsed.all("div") if each.get("role") == "region"]
    assert len(labels) == len(set(labels)) == len(parsed.all("table"))
    assert all(each.get("scope") for each in parsed.all("th"))
    assert not parsed.all("button")  # nothing that needs the script


def test_sorting_has_a_number_where_the_text_has_units(text):
    found = re.findall(r'<td data-key="([\d.e-]+)">(\d[\d.]* m?s) ±', text)
    assert len(found) > 8
    for key, shown in found:
        number, unit = shown.split()
        assert float(key) == pytest.approx(float(number) * {"s": 1, "ms": 1e-3}[unit], rel=0.01)


def test_a_table_escapes_and_links():
    made = grid.grid("<c>", ["<h>"], [["<a>"], [Entry("<t>", 2, "x", 'u"r')]])
    assert "<caption>&lt;c&gt;</caption>" in made
    assert '<th scope="row" data-key="2" class="x"><a href="u&quot;r">&lt;t&gt;</a></th>' in made


def test_a_heat_map_has_ratio_verdict_and_colour_of_each_cell(text):
    table = re.search(r'<table class="heat">.*?</table>', text, re.DOTALL)[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    assert [name for name, _ in rows] == ["batch_pages=16384", "batch_pages=65536"]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == ["1", "2", "4", "8"]
    for _, row in rows:
        cells = re.findall(r'class="(\S+) (\S+)" title="(.*?)">([\d.]+) <span>(.*?)</span>', row)
        assert [cell[0] for cell in cells] == ["worse-2", "equal", "better-2", "better-4"]
        assert [cell[4] for cell in cells] == ["slower", "faster", "faster", "faster"]
        assert all(f"ratio {ratio}, 95 % CI" in title for _, _, title, ratio, _ in cells)


def test_of_three_tunables_each_value_of_the_third_has_a_map():
    some = page_runs.matrix(blocks=3)
    both = [
        replace(
            one,
            setting=one.setting and {"zone": zone, **one.setting},
            cell=one.cell + f"/zone={zone}" * bool(one.setting),
        )
        for one in some
        for zone in ("dma", "normal")
        if one.setting or zone == "dma"
    ]
    maps = heat.maps_of(page_runs.report(both).experiments[0])
    assert [(one.across, one.down, one.rest) for one in maps] == [
        ("max_active", "zone", {"batch_pages": 16384}),
        ("max_active", "zone", {"batch_pages": 65536}),
    ]


def test_one_tunable_has_no_map():
    one = [s for s in page_runs.matrix(blocks=3) if s.setting.get("batch_pages") != 65536]
    assert heat.maps_of(page_runs.report(one).experiments[0]) == []


def test_each_point_has_its_value_and_a_plot_its_name(text):
    plots = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert all('role="img" aria-label="' in plot for plot in plots)
    over_time = next(plot for plot in plots if "matrix: every repetition over time" in plot)
    titles = [unescape(each) for each in re.findall(r"<title>(.*?)</title>", over_time)]
    assert len([each for each in titles if re.search(r" (m?s|us); block", each)]) == 10 * 6 * 2
    assert sum("other processes 3" in each for each in titles) > 10
    assert any("block 5, repetition 1, minute" in each for each in titles)
    failed = next(plot for plot in plots if "exit: every repetition over time" in plot)
    assert failed.count(": panic; block") == 4


def test_values_of_points_that_are_not_drawn_are_left_out():
    values = svg.Values()
    name = values.add(["<one>", "two"])
    drawn = f'<svg a="b"><g id="{name}"><g><use x="1" y="2" style="s"/></g></g></svg>'
    assert "<title>" not in svg.labelled(drawn, "plot", values)
    assert "<title>" not in svg.labelled('<svg a="b"></svg>', "plot", values)
    values.groups[name].pop()
    assert "<title>&lt;one&gt;</title>" in svg.labelled(drawn, "plot", values)


def test_nightly_runs_of_one_day_are_drawn():
    one = NightlyValue(
        night="2026-10-03", run="a", ratio=1.1, measured=(1.1,), ci=None, blocks=2, image="b"
    )
    start = SegmentStart(first=one.night, why="", continues=False)
    cell = CellTrend(
        experiment="e",
        cell="c",
        kernel="k",
        setting={},
        baseline="stock",
        measured_last_night=True,
        nights=(one, one),
        segments=(start,),
    )
    assert plots.trend(cell, []).count("<title>2026-10-03: ratio") == 2


def test_consoles_are_those_in_the_folder_of_the_run(tmp_path):
    run = RunFolder(tmp_path / "run")
    log = run.path / page_runs.LOG
    log.parent.mkdir(parents=True)
    log.write_bytes(b"early\n" * 10_000 + b"last \x1b[31mwords \xff\n")
    (tmp_path / "secret").write_text("secret")
    (run.path / "link").symlink_to(tmp_path / "secret")
    one, *_ = [s for s in page_runs.failing() if s.console]
    samples = [
        replace(one, console=path, message=f"{word} failed", repetition=number)
        for number, (path, word) in enumerate(
            [(page_runs.LOG, "a"), ("../secret", "b"), ("link", "c"), ("gone", "d"), ("a\0b", "e")]
        )
    ]
    found = consoles.of_run(run, samples, lambda path: f"x/{path}")
    assert found.links == {page_runs.LOG: f"x/{page_runs.LOG}"}
    assert list(found.excerpts) == [page_runs.LOG]
    lines = found.excerpts[page_runs.LOG].splitlines()
    assert lines[-1] == "last ?[31mwords \ufffd"
    assert len(lines) == 60


def test_a_failure_links_to_the_end_of_its_console(text):
    assert '<a href="#console-1">end of the console</a>' in text
    assert '<details id="console-1">' in text
    assert f'<a href="runs/{page_runs.RUN}/{page_runs.LOG}">The whole log</a>' in text


def test_many_remarks_are_closed_but_on_the_page(text):
    assert re.search(r'<details class="more"><summary>\d+ more remarks on matrix', text)


def test_the_policy_allows_the_script_of_the_page_alone():
    whole = page.whole("<t>", ["<p>x</p>"])
    assert "<title>&lt;t&gt;</title>" in whole
    policy = unescape(re.search(r'Content-Security-Policy" content="(.*?)"', whole)[1])
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def contrast(first, second):
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour):
        if len(colour) == 4:
            colour = "#" + "".join(2 * digit for digit in colour[1:])
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_on_paper_and_on_each_colour_of_a_heat_map():
    style = page.whole("", []).split("<style>")[1].split("</style>")[0]
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in
                   re.findall(r":root \{(.*?)\}", style, re.DOTALL))  # fmt: skip
    for scheme in (light, light | dark):
        for name in ("ink", "dim", "link", "better", "worse", "suspect"):
            assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
        steps = ["shade", *(f"{way}-{n}" for way in ("better", "worse") for n in range(1, 5))]
        for name in steps:
            assert contrast(scheme["ink"], scheme[name]) >= 4.5, name
