"""Call stacks and function profiles: how they are compared, drawn and printed."""

import re
from html import unescape

import page_runs
import pytest
from profiles import FUNCTIONS, STACKS, UNMAP, found, functions, measured, stacks

from labctl.observers.stacks import frames_of, functions_of
from labctl.reports import explanation, flame, page, why
from labctl.stats import frames as frames_module
from labctl.stats.cells import cells_of
from labctl.stats.compare import roles
from labctl.stats.explanation_types import Explanation, FrameTime

SAMPLED = {"stacks.a;b;a.nanoseconds": 4, "stacks.a;c.nanoseconds": 2, "vmstat.pgfault": 7}


@pytest.fixture(scope="module")
def of_stacks():
    return found(stacks)


@pytest.fixture(scope="module")
def drawn(of_stacks):
    return flame.graph(of_stacks.cells[0].frames, baseline="stock", cell="patched", name="<n>")


def boxes(text):
    """Return the boxes of a flame graph by function: x, y, width, classes and title."""
    pattern = (
        r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="16.0" class="([\w -]+)">'
        r"<title>([^<:]+): ([^<]+)</title></rect>"
    )
    return {
        name: (float(x), float(y), float(width), classes, title)
        for x, y, width, classes, name, title in re.findall(pattern, text)
    }


def test_times_of_stacks_become_those_of_functions_and_of_frames():
    assert functions_of(SAMPLED) == {
        "stacks.a.nanoseconds": 6, "stacks.b.nanoseconds": 4, "stacks.c.nanoseconds": 2,
        "vmstat.pgfault": 7,
    }  # fmt: skip
    assert frames_of(SAMPLED) == {
        "stacks.a.nanoseconds": 6, "stacks.a;b.nanoseconds": 4, "stacks.a;b;a.nanoseconds": 4,
        "stacks.a;c.nanoseconds": 2,
    }  # fmt: skip


def test_the_lock_is_the_first_function_and_its_frames_changed(of_stacks):
    [cell] = of_stacks.cells
    first = {change.counter for change in cell.changes[:2]}
    assert first == {
        "stacks.take_planted_lock.nanoseconds", "stacks._raw_spin_lock.nanoseconds"
    }  # fmt: skip
    by_path = {each.frame: each for each in cell.frames}
    assert {path for path, each in by_path.items() if each.changed} == {
        f"{UNMAP};take_planted_lock", f"{UNMAP};take_planted_lock;_raw_spin_lock",
        f"{UNMAP};page_remove_rmap",
    }  # fmt: skip
    lock = by_path[f"{UNMAP};take_planted_lock"]
    assert lock.baseline == 0
    assert lock.difference == lock.cell == pytest.approx(60e6, rel=0.1)
    # A frame has the time of what it calls; one of no width is left out.
    unmap = sum(times[1] for path, times in STACKS.items() if path.startswith(UNMAP))
    assert by_path[UNMAP].cell == pytest.approx(unmap * 1e6, rel=0.1)
    assert "ret_from_fork" not in by_path


def test_the_baselines_stacks_are_read_once_for_all_cells(monkeypatch):
    samples = [*measured(stacks, blocks=1), *measured(stacks, blocks=1, kernel="second")]
    cells = cells_of({each.key: each for each in samples}.values())
    baselines, controls, others = roles(cells, "stock")
    read = []
    monkeypatch.setattr(frames_module, "values_of", lambda cell, _: read.append(cell.id) or {})
    assert frames_module.frames(others, baselines, controls, 0.95) == [(), ()]
    assert sorted(read) == ["patched", "second", "stock", "stock+aa"]


def test_too_few_blocks_change_nothing():
    [cell] = found(stacks, blocks=5).cells
    assert cell.frames
    assert not [each for each in cell.frames if each.changed]


def test_a_box_is_below_its_caller_and_as_wide_as_both_kernels_times(drawn):
    found = boxes(drawn)
    assert len(found) == drawn.count("<rect") == 14
    x, y, width, _, _ = found["all"]
    assert (x, y, width) == (0.5, 0.5, 439)
    caller, own = found["zap_pte_range"], found["take_planted_lock"]
    assert own[1] == caller[1] + 17
    assert caller[0] <= own[0]
    assert own[0] + own[2] <= caller[0] + caller[2] + 0.02
    whole = sum(sum(times) for times in STACKS.values())
    assert own[2] == pytest.approx(440 * 60 / whole, rel=0.1)
    assert found["clear_page_erms"][2] == pytest.approx(440 * 440 / whole, rel=0.1)


def test_what_changed_is_seen_without_colour_and_read_as_text(drawn):
    found = boxes(drawn)
    assert found["take_planted_lock"][3] == "worse-4 longer"
    assert re.fullmatch(r"better-[23] shorter", found["page_remove_rmap"][3])
    assert {found[name][3] for name in ("zap_pte_range", "clear_page_erms", "all")} == {"equal"}
    assert re.fullmatch(
        r"0 ns in stock, [\d.]+ ms in patched: \+[\d.]+ ms, changed; [\d.]+ % of both",
        found["take_planted_lock"][4],
    )
    assert "within noise" in found["clear_page_erms"][4]
    assert "-" in found["page_remove_rmap"][4].split(":")[1]
    assert 'role="img"' in drawn
    assert 'aria-label="&lt;n&gt;"' in drawn


def test_a_name_fits_its_box(drawn):
    labels = [unescape(each) for each in re.findall(r"<text [^>]*>([^<]+)</text>", drawn)]
    widths = {name: width for name, (_, _, width, _, _) in boxes(drawn).items()}
    for label in labels:
        name = next(name for name in widths if name.startswith(label.split(" ")[0].rstrip("…")))
        assert len(label) * 6.2 <= widths[name]
    assert "clear_page_erms" in labels


def test_stacks_without_time_are_drawn():
    nothing = FrameTime(frame="a", baseline=0.0, cell=0.0, difference=0.0, changed=False)
    for frames in ((), (nothing,)):
        assert "all: 0 ns in x, 0 ns in y" in flame.graph(frames, baseline="x", cell="y", name="n")


def test_the_page_has_functions_side_by_side_and_the_stacks_as_a_picture_and_a_table(of_stacks):
    parts = "".join(why.of_experiment("smoke", [of_stacks, found(functions)]))
    captions = re.findall("<caption>(.*?)</caption>", parts)
    assert len(captions) == len(set(captions)) == 4
    [table] = re.findall(r"<caption>Own time of functions.*?</table>", parts, re.DOTALL)
    headings = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert headings == ["function", "stock", "patched", "difference", "changed"]
    lock = re.search(r"take_planted_lock</th>(.*?)</tr>", table)[1]
    assert re.findall(r">([^<]+)</td>", lock)[-1] == "yes"
    [plot] = re.findall(r'<svg [^>]*aria-label="Own time of functions.*?</svg>', parts, re.DOTALL)
    assert "<title>take_planted_lock in stock: 0 ns</title>" in plot
    assert plot.count("<title>") == 2 * 12
    [graph] = re.findall(r'<svg [^>]*class="flame".*?</svg>', parts, re.DOTALL)
    assert "take_planted_lock" in graph
    [stack] = re.findall(r"<summary>Stacks as a table.*?</details>", parts, re.DOTALL)
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', stack)
    assert ("take_planted_lock", "zap_pte_range") in rows[:2]
    assert why.of_experiment("other", [of_stacks]) == []


def test_a_whole_page_has_the_part_below_its_experiment():
    text = page_runs.page()
    part = text.index("<h3>Why: stacks</h3>")
    assert text.index("<h2 id=") < part < text.index('<h2 id="experiment-2">')


def test_the_text_of_explain_names_the_picture(of_stacks):
    text = explanation.render(Explanation(run="r", accel="tcg", experiments=(of_stacks,)))
    assert "flame graph of the difference" in text
    assert "stacks.take_planted_lock.time" in text
    functions_only = Explanation(run="r", accel="tcg", experiments=(found(functions),))
    assert "flame graph" not in explanation.render(functions_only)
    assert all(name in explanation.render(functions_only) for name in list(FUNCTIONS)[:4])


def test_a_page_has_colours_for_every_class_of_a_box():
    style = page.whole("", [])
    steps = [f"{way}-{step}" for way in ("better", "worse") for step in range(1, 5)]
    for kind in ("longer", "shorter", "equal", *steps):
        assert f".flame .{kind}" in style
