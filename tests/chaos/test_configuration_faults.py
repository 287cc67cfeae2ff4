"""etcd is killed, frozen, cut off and compacted, gateways are killed and forgotten, while changes are written
and requests sent: what is in force afterwards is what etcd holds, nothing is lost and nothing applied twice.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from configuration_rig import Rig
from fault_report import publish
from store_faults import (
    compacted_while_cut_off,
    frozen,
    gateway_restarted_while_etcd_is_away,
    killed,
    leases_lost,
    packets_dropped,
    partitioned,
)

SEED = int(os.environ.get("CROSSGATE_TEST_SEED", "20260101"))


async def rows_of(folder, seed, faults, **settings):
    rows = []
    async with Rig(folder, seed, **settings) as rig:
        try:
            for name, fault in faults.items():
                rows.append(await rig.row(name, fault))
        finally:
            publish(rows)
    return rows


@pytest.mark.slow
async def test_what_gateways_serve_is_what_etcd_holds_after_each_fault(tmp_path):
    faults = {
        "killed for 3 s": killed(3.0),
        "frozen for 8 s": frozen(8.0),
        "cut off without a word for 8 s": partitioned(8.0),
        "compacted while cut off": compacted_while_cut_off(2.0),
        "a gateway killed and started while etcd is away": gateway_restarted_while_etcd_is_away,
        "the gateways' leases lost": leases_lost,
    }
    rows = await rows_of(tmp_path, SEED, faults)
    assert len(rows) == len(faults)
    assert [row for row in rows if not row.is_clean] == []
    assert all(row.made and row.answered and row.revisions_seen for row in rows)


@pytest.mark.long
@pytest.mark.parametrize("seed", [SEED + 1, SEED + 2])
async def test_it_is_so_when_faults_outlast_every_lease(tmp_path, seed):
    faults = {
        "killed for 15 s": killed(15.0),
        "frozen for 13 s": frozen(13.0),
        "cut off without a word for 14 s": partitioned(14.0),
        "compacted while cut off for 12 s": compacted_while_cut_off(12.0),
        "a gateway killed and started while etcd is away": gateway_restarted_while_etcd_is_away,
        "the gateways' leases lost": leases_lost,
    }
    names = Random(seed).sample(sorted(faults), len(faults))
    rows = await rows_of(tmp_path, seed, {name: faults[name] for name in names})
    assert len(rows) == len(faults)
    assert [row for row in rows if not row.is_clean] == []


@pytest.mark.long
async def test_it_is_so_where_a_network_drops_the_packets(tmp_path):
    faults = {
        "packets dropped for 3 s": packets_dropped(3.0),
        "packets dropped for 13 s": packets_dropped(13.0),
    }
    rows = await rows_of(tmp_path, SEED, faults, networked=True)
    assert len(rows) == len(faults)
    assert [row for row in rows if not row.is_clean] == []
