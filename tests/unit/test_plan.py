import re

from synthetic import lab

from labctl.experiments.plan import BootGroup, plan


def cells(planned):
    return [cell.id for cell in planned.cells]


def test_the_baseline_comes_twice():
    planned = plan(lab(), "e", 1)
    assert cells(planned) == ["stock", "stock+aa", "patched"]
    assert [cell.label for cell in planned.cells] == ["stock", "stock (A/A)", "patched"]


def test_a_tunable_of_the_patched_kernel_is_not_the_baselines():
    planned = plan(lab(matrix={"max_active": (1, 2)}), "e", 1)
    assert cells(planned) == ["stock", "stock+aa", "patched/max_active=1", "patched/max_active=2"]
    assert planned.cells[0].tunables == {}
    assert planned.cells[3].tunables == {"max_active": 2}


def test_a_workload_parameter_is_the_baselines_too():
    planned = plan(lab(matrix={"size": (1, 2), "max_active": (4,)}), "e", 1)
    assert cells(planned) == [
        "stock/size=1",
        "stock/size=2",
        "stock+aa/size=1",
        "stock+aa/size=2",
        "patched/size=1/max_active=4",
        "patched/size=2/max_active=4",
    ]
    assert planned.cells[1].parameters == {"op": "free", "size": 2}


def test_a_kernel_parameter_needs_a_boot_of_its_own():
    planned = plan(lab(matrix={"numa_balancing": (0, 1)}), "e", 1)
    assert [group.name for group in planned.groups()] == [
        "stock+numa_balancing.0",
        "stock+numa_balancing.1",
        "stock+aa+numa_balancing.0",
        "stock+aa+numa_balancing.1",
        "patched+numa_balancing.0",
        "patched+numa_balancing.1",
    ]
    assert planned.groups()[1].command_line() == "numa_balancing=1"


VALUES = ("1,3-5", "1,3_5", "file a.c +p", "file_a.c_+p", "../../x", "a/b", "x" * 300, "\u00e9", "")


def test_any_value_of_a_parameter_makes_a_name_of_its_own_that_is_safe():
    planned = plan(lab(matrix={"numa_balancing": VALUES}), "e", 1)
    names = [group.name for group in planned.groups()]
    assert len(set(names)) == 3 * len(VALUES)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{1,120}", name)
    lines = [group.command_line() for group in planned.groups()]
    assert lines[:3] == [
        "numa_balancing=1,3-5", "numa_balancing=1,3_5", 'numa_balancing="file a.c +p"',
    ]  # fmt: skip


def test_parameters_that_read_alike_have_different_names():
    one = BootGroup("stock", False, (("a", "1+b.2"),))
    other = BootGroup("stock", False, (("a", 1), ("b", 2)))
    assert one.name != other.name


def test_a_kernel_named_like_the_control_has_a_guest_of_its_own():
    groups = [
        BootGroup("stock", True, ()),
        BootGroup("stock-aa", False, ()),
        BootGroup("stock", True, (("p", 1),)),
        BootGroup("stock-aa", False, (("p", 1),)),
        BootGroup("stock-aa-p.1", False, ()),
        BootGroup("stock", False, (("p", "aa+p.1"),)),
    ]
    assert len({group.name for group in groups}) == len(groups)


def test_values_with_slashes_make_different_cells():
    values = {"size": ("1", "1/op=2"), "op": ("2/op=3", "3")}
    planned = plan(lab(matrix=values), "e", 1)
    assert len(set(cells(planned))) == 3 * 4
    assert "stock/size=1/op=3" in cells(planned)


def test_file_tunables_share_a_boot():
    planned = plan(lab(matrix={"max_active": (1, 2, 4)}), "e", 1)
    assert [group.name for group in planned.groups()] == ["stock", "stock+aa", "patched"]


def test_every_repetition_measures_every_cell_once():
    planned = plan(lab(matrix={"max_active": (1, 2, 4)}, repetitions=3), "e", 1)
    repetitions = planned.block(0)
    for number in range(3):
        measured = [one.cell.id for one in repetitions if one.number == number and not one.warmup]
        assert sorted(measured) == sorted(cells(planned))


def test_each_guest_is_warmed_up_once():
    repetitions = plan(lab(matrix={"max_active": (1, 2, 4)}), "e", 1).block(0)
    warmups = [one.cell.group.name for one in repetitions if one.warmup]
    assert sorted(warmups) == ["patched", "stock", "stock+aa"]
    assert all(one.warmup for one in repetitions[:3])


def test_the_order_is_the_seeds():
    def order(seed, block):
        return [v.cell.id for v in plan(lab(), "e", seed).block(block)]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, 0)) for seed in range(20)}) > 1
    assert len({tuple(order(1, block)) for block in range(20)}) > 1


def test_settings_of_the_experiment_reach_those_who_have_them():
    planned = plan(lab(set={"max_active": 3, "size": 7}), "e", 1)
    assert [cell.tunables for cell in planned.cells] == [{}, {}, {"max_active": 3}]
    assert {cell.parameters["size"] for cell in planned.cells} == {7}


def test_expected_time_counts_boots_and_repetitions():
    planned = plan(lab(blocks=6, repetitions=2), "e", 1)
    least, most = planned.expected_seconds(boot_seconds=10, repetition_seconds=1)
    assert least == most == 6 * (3 * 10 + 3 + 2 * 3)
