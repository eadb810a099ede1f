import math

from kovar.resources.greedy import num_added, pack_greedily
from kovar.resources.need import Need, Room

NEED = Need(places=1, amounts=(4,))
ROOM = Room(
    members=(0,), takes=(True,), amounts=(8,), cards=0, idle=0, price=math.inf, up=1, extra=1
)


def test_what_is_left_on_nodes_in_use_is_filled_first():
    packed = pack_greedily([NEED], (3,), [ROOM], start=[(0, (1,), 1)])
    assert sorted(packed) == [(0, (1,), 1), (0, (2,), 1)]
    assert num_added(packed, [ROOM]) == 1


def test_nodes_in_use_are_not_used_again():
    assert pack_greedily([NEED], (5,), [ROOM], start=[(0, (1,), 1)]) is None


def test_a_node_that_is_up_is_none_to_be_added():
    assert num_added([(0, (2,), 1)], [ROOM]) == 0
