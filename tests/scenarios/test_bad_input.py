"""Bad input: one clear line that names key and value, exit status 2, no stack trace, nothing written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.scenarios.command import QUICK, run

#: Files that the cases below name as {name}.
FILES = {
    "empty.csv": "",
    "header.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "malformed.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,10,10\n2023-11-16 18:00:01,ten,10\n",
    "short_row.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,10,10\n2023-11-16 18:00:01\n",
    "out_of_order.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:09,10,10\n2023-11-16 18:00:01,9,9\n",
    "negative.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,-10,10\n",
    "not_a_time.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,10,10\n",
    "columns.csv": "WHEN,HOW,MUCH\n1,2,3\n",
    "malformed.jsonl": '{"timestamp": 0, "input_length": 10, "output_length": 5, "hash_ids": [0]}\n{"timestamp": 1,\n',
    "long.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,100000,10\n",
    "good.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,10,10\n2023-11-16 18:00:01,10,10\n",
    "grid_lca.csv": "datetime_utc,AA,BB\n2024-01-01 00:00:00,100,200\n2024-01-01 01:00:00,110,210\n",
    "grid_fine.csv": "datetime_utc,AA\n2024-01-01 00:00:00,400\n2024-01-01 00:30:00,300\n",
    "grid_twice.csv": "datetime_utc,AA\n2024-01-01T00:00,400\n2024-01-01T00:15,300\n2024-01-01T00:15,300\n",
    "grid_zones.csv": "datetime_utc,AA\n2024-01-01T00:00+00:00,400\n2024-01-01T01:00+01:00,300\n",
    "grid_kg.csv": "datetime_utc,AA\n2024-01-01T00:00,0.4\n2024-01-01T01:00,0.3\n",
    "grid_gap.csv": "datetime_utc,AA\n2024-01-01 00:00:00,100\n2024-01-01 05:00:00,110\n",
    "conf_broken/router/mine.yaml": "_target_: [sim\n",
    "conf_hydra/router/mine.yaml": "# @package hydra.callbacks.x\n_target_: os.system\n",
    "conf_os/router/mine.yaml": "_target_: os.system\ncommand: touch owned\n",
    "conf_made/router/mine.yaml": "x: \"${oc.create:'{_target_: os.system, command: ls}'}\"\n",
    "conf_later/router/mine.yaml": "_target_: ${router.x}\nx: os.system\ncommand: touch owned\n",
    "conf_plugin/router/mine.yaml": "# @package _global_\nplugins: [os]\nrouter: {_target_: os.system, command: ls}\n",
    "conf_group/xpu/mine.yaml": "name: Mine\ncolour: red\n",
}

POOL = "fleet.sites.cloud.pools.cloud"
TRACE = ("fleet=single", "workload=azure_trace")
MIXED = ("fleet.sites.cloud.grid=norway",)
GRID = "fleet.grid={{path:{grid_lca.csv},zone:AA,start_utc:'2024-01-01T00:00'}}"

#: id -> (arguments, what the message must name). A {name} is replaced by the path of that file.
CASES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    # -- the command line itself
    "no such command": (["simulate"], ["command='simulate'", "run"]),
    "no such option": (["run", "--fast"], ["--fast"]),
    "option without its value": (["run", "--config-dir"], ["--config-dir"]),
    "hydra's own option": (["run", "--config-name", "other"], ["--config-name"]),
    "cfg of nothing": (["run", "--cfg", "everything"], ["everything", "job"]),
    "config dir is missing": (["run", "--config-dir", "nowhere"], ["--config-dir", "nowhere", "exists"]),
    "config dir does not parse": (["run", "--config-dir", "{conf_broken}"], ["mine.yaml", "parses"]),
    "config dir sets up hydra": (["run", "--config-dir", "{conf_hydra}"], ["mine.yaml", "hydra"]),
    "own xpu is malformed": (
        ["run", "--config-dir", "{conf_group}", "fleet=single", "fleet.xpu=mine"],
        ["mine.yaml", "colour"],
    ),
    # -- overrides
    "unknown key": (["run", "seeed=3"], ["seeed='3'", "did you mean seed"]),
    "unknown key of a pool": (["run", f"{POOL}.replica=2"], [f"{POOL}.replica='2'", "did you mean replicas"]),
    "unknown site": (["run", "fleet.sites.moon.pue=2"], ["fleet.sites.moon", "edge, cloud"]),
    "added unknown key": (["run", "+speed=3"], ["speed=3", "did you mean seed"]),
    "added unknown key of a site": (["run", "+fleet.sites.edge.colour=red"], ["fleet.sites.edge.colour='red'", "grid"]),
    "added unknown key of an engine": (["run", f"+{POOL}.engine.speed=9"], [f"{POOL}.engine.speed=9", "block_size"]),
    "override without value": (["run", "seed"], ["override='seed'", "KEY=VALUE"]),
    "override does not parse": (["run", "seed=[1,"], ["override='seed=[1,'", "KEY=VALUE"]),
    "sweep without multirun": (["run", "seed=1,2"], ["seed='1,2'", "--multirun"]),
    "no such router": (["run", "router=spilover"], ["router='spilover'", "did you mean spillover"]),
    "no such workload": (["run", "workload=azure_conv_2022"], ["workload='azure_conv_2022'", "azure_conv_2023"]),
    "no such fleet": (["run", "fleet=hibrid"], ["fleet='hibrid'", "did you mean hybrid"]),
    "no such slo": (["run", "slo=chat_relax"], ["slo='chat_relax'", "chat_relaxed"]),
    "no such option in a sweep": (["run", "-m", "router=cloud_only,nope"], ["router='nope'", "cloud_only"]),
    "interpolation leads nowhere": (["run", "seed=${{nope}}"], ["seed='${{nope}}'", "nope"]),
    "group is taken away": (["run", "~router"], ["router._target_=None", "a class in sim"]),
    "hydra's mode": (["run", "hydra.mode=MULTIRUN"], ["hydra.mode='MULTIRUN'", "--multirun"]),
    "a folder behind our back": (
        ["run", "hydra.searchpath=[file:///tmp]"],
        ["hydra.searchpath='[file:///tmp]'", "--config-dir"],
    ),
    # -- links
    "site that no link leads to": (
        ["run", "fleet.links.to_cloud=null"],
        ["fleet.links=['edge']", "a link to cloud as well"],
    ),
    "link without bandwidth": (
        ["run", "+fleet.links.to_cloud.up_bytes_per_s=0"],
        ["fleet.links.to_cloud.up_bytes_per_s=0", "bytes/s"],
    ),
    "no such kind of link": (
        ["run", "fleet.links.to_cloud.type=infiniban"],
        ["fleet.links.to_cloud.type='infiniban'", "infiniband_ndr"],
    ),
    "outage that ends before it begins": (
        ["run", "+fleet.links.to_cloud.outages=[[9,5]]"],
        ["fleet.links.to_cloud.outages[0]=[9.0, 5.0]", "start_s < end_s"],
    ),
    "outages that overlap": (
        ["run", "+fleet.links.to_cloud.outages=[[5,9],[7,12]]"],
        ["fleet.links.to_cloud.outages[1]=[7.0, 12.0]", "begin after 9 s"],
    ),
    "latency of no such shape": (
        ["run", "+fleet.links.to_cloud.latency={{_target_: sim.fleet.latency.Gamma, mean_s: -1}}"],
        ["fleet.links.to_cloud.latency.mean_s=-1", "> 0 s"],
    ),
    "latency that runs code": (
        ["run", "+fleet.links.to_cloud.latency={{_target_: os.system, command: ls}}"],
        ["fleet.links.to_cloud.latency._target_='os.system'", "a class in sim"],
    ),
    "no such network energy": (["run", "network_energy=lots"], ["network_energy='lots'", "central"]),
    "negative network energy": (["run", "network_energy.wan=-1"], ["network_energy.wan=-1", ">= 0 J/byte"]),
    # -- settings
    "seed is a word": (["run", "seed=two"], ["seed='two'", "whole number"]),
    "seed is negative": (["run", "seed=-1"], ["seed=-1", "at least 0"]),
    "seed is a fraction": (["run", "seed=1.5"], ["seed=1.5", "whole number"]),
    "seed is true": (["run", "seed=true"], ["seed=True", "whole number"]),
    "warmup is negative": (["run", "warmup_s=-1"], ["warmup_s=-1", ">= 0"]),
    "warmup is NaN": (["run", "warmup_s=nan"], ["warmup_s=nan", ">= 0"]),
    "horizon is zero": (["run", "horizon_s=0"], ["horizon_s=0", "> 0"]),
    "warmup past the horizon": (["run", "warmup_s=100", "horizon_s=50"], ["warmup_s=100", "50"]),
    "drain is a word": (["run", "drain=perhaps"], ["drain='perhaps'", "true | false"]),
    "oversize": (["run", "oversize=ignore"], ["oversize='ignore'", "reject"]),
    "basis": (["run", "basis=marginal"], ["basis='marginal'", "direct"]),
    "bins of no width": (["run", "timeline_bin_s=0"], ["timeline_bin_s=0", "> 0"]),
    "spans is a number": (["run", "spans=1"], ["spans=1", "true | false"]),
    "progress": (["run", "progress=fancy"], ["progress='fancy'", "bar"]),
    "name with a slash": (["run", "name=a/b"], ["name='a/b'", "slashes"]),
    "plugins is a word": (["run", "plugins=numpy"], ["plugins='numpy'", "a list"]),
    # -- the output folder
    "out exists": (["run", *QUICK, "out={there}"], ["out=", "there", "does not exist yet"]),
    "out of a sweep exists": (["run", "-m", *QUICK, "seed=1", "out={there}"], ["out=", "there", "does not exist yet"]),
    "out where nobody can write": (["run", *QUICK, "out=/proc/run"], ["out='/proc/run'", "can be made"]),
    "out below a file": (["run", *QUICK, "out={good.csv}/run"], ["out=", "good.csv/run"]),
    # -- workload
    "rate is negative": (["run", "workload=poisson", "workload.rate=-1"], ["rate=-1", "> 0"]),
    "rate is NaN": (["run", "workload=poisson", "workload.rate=nan"], ["rate=nan", "> 0"]),
    "rate is zero": (["run", "workload=poisson", "workload.rate=0"], ["rate=0", "> 0"]),
    "rate is a word": (["run", "workload=poisson", "workload.rate=fast"], ["rate='fast'", "> 0"]),
    "cv is negative": (["run", "workload=gamma", "workload.cv=-0.5"], ["workload.cv=-0.5", "0.001"]),
    "duration is negative": (["run", "workload.duration_s=-5"], ["workload.duration_s=-5", "> 0"]),
    "no requests": (["run", "workload.limit=0"], ["workload.limit=0"]),
    "endless workload": (["run", "workload.duration_s=null"], ["workload.duration_s=None", "limit"]),
    "unknown key of a workload": (["run", "+workload.colour=red"], ["workload.colour='red'", "rate"]),
    "trace without a path": (["run", "workload=azure_trace"], ["workload.path", "workload.path=..."]),
    "trace is missing": (["run", *TRACE, "workload.path=nowhere.csv"], ["workload.path", "nowhere.csv"]),
    "trace is a folder": (["run", *TRACE, "workload.path={there}"], ["workload.path", "there"]),
    "trace is empty": (["run", *TRACE, "workload.path={empty.csv}"], ["empty.csv"]),
    "trace has a header only": (["run", *TRACE, "workload.path={header.csv}"], ["header.csv"]),
    "malformed row": (["run", *TRACE, "workload.path={malformed.csv}"], ["malformed.csv line 3", "'ten'"]),
    "row too short": (["run", *TRACE, "workload.path={short_row.csv}"], ["short_row.csv line 3"]),
    "row out of order": (["run", *TRACE, "workload.path={out_of_order.csv}"], ["out_of_order.csv line 3", "sort"]),
    "negative tokens": (["run", *TRACE, "workload.path={negative.csv}"], ["negative.csv line 2", "-10"]),
    "not a time": (["run", *TRACE, "workload.path={not_a_time.csv}"], ["not_a_time.csv line 2", "yesterday"]),
    "no such columns": (["run", *TRACE, "workload.path={columns.csv}"], ["columns.csv", "TIMESTAMP"]),
    "malformed JSON": (
        ["run", "workload=mooncake_trace", "workload.path={malformed.jsonl}"],
        ["malformed.jsonl line 2"],
    ),
    "no arrival column": (
        ["run", *TRACE, "workload.path={columns.csv}", "+workload.columns={{arrival:T,prompt:HOW,output:MUCH}}"],
        ["columns.csv", "an arrival column named T"],
    ),
    "trace scaled by zero": (["run", *TRACE, "workload.path={good.csv}", "workload.rate_scale=0"], ["rate_scale=0"]),
    "window past the trace": (
        ["run", *TRACE, "workload.path={good.csv}", "workload.start_s=99"],
        ["start_s=99", "window"],
    ),
    # -- SLO classes
    "no classes": (["run", "slo.classes=[]"], ["slo.classes=[]", "at least one"]),
    "bound is negative": (["run", "slo.classes=[{{name:chat,ttft_s:-1}}]"], ["slo.chat.ttft_s=-1", "> 0"]),
    "unknown key of a class": (["run", "slo.classes=[{{name:chat,speed:1}}]"], ["slo.classes[0].speed=1", "ttft_s"]),
    "classes of one name": (["run", "slo.classes=[{{name:a}},{{name:a}}]"], ["['a', 'a']", "once"]),
    # -- fleet
    "no replicas": (["run", f"{POOL}.replicas=0"], [f"{POOL}.replicas=0", "at least 1"]),
    "replicas is a word": (["run", f"{POOL}.replicas=two"], [f"{POOL}.replicas='two'", "whole number"]),
    "replicas is a fraction": (["run", f"{POOL}.replicas=1.5"], [f"{POOL}.replicas=1.5", "whole number"]),
    "tp does not divide the heads": (["run", "fleet=single", "fleet.tp=3"], ["tp=3", "divisor"]),
    "no such xpu": (["run", f"{POOL}.xpu=h100"], [f"{POOL}.xpu='h100'", "h100_sxm"]),
    "no such model": (["run", f"{POOL}.model=llama_3_1_9b"], [f"{POOL}.model='llama_3_1_9b'", "llama_3_1_8b"]),
    "no such precision": (["run", f"{POOL}.precision=fp7"], [f"{POOL}.precision='fp7'", "bf16"]),
    "precision that the chip lacks": (["run", "fleet=single", "fleet.xpu=t4"], ["'bf16'", "t4", "fp16"]),
    "model larger than its pool": (
        ["run", "fleet=single", "fleet.xpu=l4", "fleet.model=llama_3_1_70b"],
        ["model='llama_3_1_70b'", "GB more", "tp=8"],
    ),
    "model larger than the pool of a site": (
        ["run", "fleet.sites.edge.pools.edge.model=llama_3_1_70b"],
        ["fleet.sites.edge.pools.edge.model='llama_3_1_70b'", "tp=8"],
    ),
    "precision that the chip of a site lacks": (
        ["run", "fleet.sites.edge.pools.edge.xpu=t4"],
        ["fleet.sites.edge.pools.edge.precision='bf16'", "t4", "fp16"],
    ),
    "balancer of a site's pool": (["run", f"{POOL}.balancer=luck"], [f"{POOL}.balancer='luck'", "round_robin"]),
    "model outside the fleet": (["run", "model=llama_3_1_8b"], ["model='llama_3_1_8b'", "fleet.model=ID"]),
    "xpu added outside the fleet": (["run", "+xpu=l40s"], ["xpu='l40s'", "fleet.sites.SITE.pools.POOL.xpu=ID"]),
    "site of a fleet without sites": (
        ["run", "fleet=single", "fleet.sites.cloud.pue=2"],
        ["fleet.sites.cloud.pue='2'", "this fleet has no sites", "fleet.pue=2"],
    ),
    "pool of a fleet without sites": (
        ["run", "fleet=single", "fleet.sites.cloud.pools.cloud.engine.speed=2"],
        ["engine.speed='2'", "this fleet has no sites", "xpu, replicas"],
    ),
    "field of a cost that is one word": (
        ["run", "fleet.sites.edge.pools.edge.cost.purchase_usd_per_xpu=9"],
        ["cost.purchase_usd_per_xpu='9'", "given whole", "{{type: owned"],
    ),
    "no batch": (["run", f"{POOL}.engine.max_num_seqs=0"], [f"{POOL}.engine.max_num_seqs=0", "at least 1"]),
    "budget below the batch": (
        ["run", f"{POOL}.engine.max_num_batched_tokens=8"],
        [f"{POOL}.engine.max_num_batched_tokens=8", "256"],
    ),
    "more memory than there is": (
        ["run", f"{POOL}.engine.gpu_memory_utilization=1.5"],
        [f"{POOL}.engine.gpu_memory_utilization=1.5", "(0, 1]"],
    ),
    "prompt longer than the KV cache": (
        ["run", *TRACE, "workload.path={long.csv}", "fleet.engine.kv_blocks=100"],
        ["100010", "tokens"],
    ),
    "pue below one": (["run", "fleet.sites.edge.pue=0.9"], ["fleet.sites.edge.pue=0.9", "at least 1"]),
    "pue by load below one": (
        ["run", "fleet.sites.edge.pue={{full_load:0.9,fixed_share:0.5}}"],
        ["fleet.sites.edge.pue.full_load=0.9"],
    ),
    "pue of 23 hours": (
        ["run", "fleet.sites.edge.pue={{hours:[1.1,1.2],zone:UTC,start_utc:'2024-01-01'}}"],
        ["fleet.sites.edge.pue.hours=[1.1, 1.2]", "24 values"],
    ),
    "pue below one in a file": (
        ["run", "fleet.sites.edge.pue={{path:{grid_kg.csv},column:AA,start_utc:'2024-01-01'}}"],
        ["grid_kg.csv line 2", "at least 1"],
    ),
    "pue is NaN": (["run", "fleet.sites.edge.pue=nan"], ["fleet.sites.edge.pue=nan", "at least 1"]),
    "site of no kind": (["run", "fleet.sites.edge.kind=moon"], ["fleet.sites.edge.kind='moon'", "device | edge"]),
    "no sites": (["run", "fleet.sites={{}}", "~fleet.sites.edge", "~fleet.sites.cloud"], ["fleet.sites", "one pool"]),
    "two pools of one name": (
        ["run", "+fleet.sites.cloud.pools.edge=${{fleet.sites.edge.pools.edge}}"],
        ["fleet.pools=['edge']", "once"],
    ),
    "no such balancer": (["run", *QUICK, "fleet.balancer=luck"], ["luck", "round_robin"]),
    "no such host": (["run", f"{POOL}.host=tower"], [f"{POOL}.host='tower'"]),
    "cost of no kind": (["run", f"{POOL}.cost=free"], [f"{POOL}.cost.type='free'", "rent | reserved | spot | owned"]),
    "tariff without a currency": (
        ["run", f"{POOL}.cost={{{{type:owned,tariff:{{{{hours:[{','.join(['0.1'] * 24)}],zone:UTC}}}}}}}}"],
        [f"{POOL}.cost.tariff.currency=None", "USD"],
    ),
    "tariff per MWh": (
        ["run", f"{POOL}.cost={{{{type:owned,tariff:{{{{path:{{grid_lca.csv}},column:AA,currency:USD}}}}}}}}"],
        ["grid_lca.csv line 2", "tariff.unit=USD/MWh"],
    ),
    "tariff and one price": (
        [
            "run",
            f"{POOL}.cost={{{{type:owned,electricity_usd_per_kwh:1,tariff:{{{{path:{{grid_lca.csv}},column:AA,"
            f"currency:USD,unit:USD/MWh,start_utc:'2024-01-01'}}}}}}}}",
        ],
        [f"{POOL}.cost.electricity_usd_per_kwh=1", "null with a tariff"],
    ),
    "reservation without a term": (
        ["run", f"{POOL}.cost={{{{type:reserved,term_years:0}}}}"],
        [f"{POOL}.cost.term_years=0", "> 0"],
    ),
    "spot without a horizon": (
        ["run", f"{POOL}.cost={{{{type:spot,interruptions_per_hour:1}}}}"],
        ["cost.interruptions_per_hour=1", "horizon_s"],
    ),
    "negative rent": (
        ["run", f"{POOL}.cost={{{{type:rent,usd_per_xpu_hour:-1}}}}"],
        [f"{POOL}.cost.usd_per_xpu_hour=-1", ">= 0"],
    ),
    "lifetime of zero": (
        ["run", f"{POOL}.embodied={{{{method:act,lifetime_years:0}}}}"],
        [f"{POOL}.embodied.lifetime_years=0", "> 0"],
    ),
    "power cap below what a busy chip draws": (
        ["run", f"{POOL}.power_cap_w=10"],
        [f"{POOL}.power_cap_w=10", "more than static_w", "at most tdp_w (700 W) of h100_sxm"],
    ),
    "clock limit above the clock": (
        ["run", f"{POOL}.clock_limit=1.2"],
        [f"{POOL}.clock_limit=1.2", "(0, 1]"],
    ),
    "clock limit below the lowest": (["run", f"{POOL}.clock_limit=0.01"], [f"{POOL}.clock_limit=0.01", "from 0.15"]),
    "no such clock law": (
        ["run", f"{POOL}.clock_limit=0.9", f"{POOL}.clock_law=ohm"],
        [f"{POOL}.clock_law='ohm'", "hybridfleet list clock_laws"],
    ),
    "active hours of zero": (
        ["run", f"{POOL}.embodied={{{{method:act,active_hours:0}}}}"],
        [f"{POOL}.embodied.active_hours=0", "> 0"],
    ),
    "share of a second life": (
        ["run", f"{POOL}.embodied={{{{method:act,second_life:{{{{years:2,share:2}}}}}}}}"],
        [f"{POOL}.embodied.second_life.share=2", "[0, 1]"],
    ),
    "rack without a boundary": (
        ["run", f"{POOL}.embodied_shares={{{{rack:{{{{kg:60}}}}}}}}"],
        [f"{POOL}.embodied_shares.rack.boundary=None"],
    ),
    "negative water": (
        ["run", "fleet.sites.edge.water={{on_site_l_per_kwh:-1}}"],
        ["fleet.sites.edge.water.on_site_l_per_kwh=-1"],
    ),
    "no such water": (["run", "fleet.sites.edge.water=dry"], ["fleet.sites.edge.water='dry'"]),
    "embodied by guessing": (["run", f"{POOL}.embodied=guess"], [f"{POOL}.embodied.method='guess'", "act"]),
    "link of no type": (["run", "fleet.links.to_edge.type=string"], ["fleet.links.to_edge.type='string'"]),
    "link to nowhere": (
        ["run", "fleet.links.to_edge.target=moon"],
        ["fleet.links.to_edge.target='moon'", "edge | cloud"],
    ),
    "negative latency": (
        ["run", "+fleet.links.to_edge.latency_s=-1"],
        ["fleet.links.to_edge.latency_s=-1", ">= 0"],
    ),
    # -- grids
    "no such grid": (["run", "fleet.sites.edge.grid=atlantis"], ["fleet.sites.edge.grid='atlantis'"]),
    "field of a grid that is an id": (
        ["run", "fleet.sites.cloud.grid.path=x.csv"],
        ["fleet.sites.cloud.grid.path='x.csv'", "an id, a number, or {{path, zone, basis, start_utc, wrap}}"],
    ),
    "negative intensity": (["run", "fleet.sites.edge.grid=-5"], ["fleet.sites.edge.grid=-5", ">= 0"]),
    "grid file is missing": (
        ["run", "fleet=single", "fleet.grid={{path:nowhere.csv,zone:AA,start_utc:'2024-01-01T00:00'}}"],
        ["fleet.grid.path='nowhere.csv'"],
    ),
    "no such zone": (["run", "fleet=single", GRID.replace("AA", "CC")], ["zone='CC'", "AA | BB"]),
    "no start": (["run", "fleet=single", "fleet.grid={{path:{grid_lca.csv},zone:AA}}"], ["start_utc=None", "ISO"]),
    "start before the data": (["run", "fleet=single", GRID.replace("2024", "2019")], ["2019-01-01", "wrap=true"]),
    "past the end of the data": (
        ["run", *QUICK, "workload.rate=0.001", "workload.duration_s=null", GRID],
        ["2024-01-01 02:00", "wrap=true"],
    ),
    "hours missing": (
        ["run", "fleet=single", GRID.replace("grid_lca", "grid_gap")],
        ["grid_gap.csv line 3", "2024-01-01 01:00"],
    ),
    "file of another basis": (["run", "fleet=single", "basis=direct", GRID], ["basis='direct'", "lca"]),
    "two bases in one run": (
        ["run", "fleet.sites.edge.grid={{path:{grid_gap.csv},zone:AA,basis:both}}"],
        ["fleet.sites.edge.grid.basis='both'", "lca | direct"],
    ),
    "bases mixed": (
        ["run", *MIXED, "fleet.sites.edge.grid={{path:{grid_fine.csv},zone:AA,basis:direct,start_utc:'2024-01-01'}}"],
        ["['direct', 'lca']", "one basis"],
    ),
    "average and marginal mixed": (
        ["run", *MIXED, "fleet.sites.edge.grid={{path:{grid_fine.csv},zone:AA,kind:marginal,start_utc:'2024-01-01'}}"],
        ["['average', 'marginal']", "one kind"],
    ),
    "no such kind of intensity": (
        ["run", "fleet=single", "fleet.grid={{path:{grid_fine.csv},zone:AA,kind:mean,start_utc:'2024-01-01'}}"],
        ["kind='mean'", "average | marginal"],
    ),
    "life-cycle of a region that has direct alone": (
        ["run", "fleet.sites.edge.grid=gcp_us_central1"],
        ["grid.basis='lca'", "direct"],
    ),
    "repeated rows": (
        ["run", "fleet=single", "fleet.grid={{path:{grid_twice.csv},zone:AA,start_utc:'2024-01-01'}}"],
        ["grid_twice.csv line 4", "2024-01-01 00:30", "repeated or out of order"],
    ),
    "time zones mixed": (
        ["run", "fleet=single", "fleet.grid={{path:{grid_zones.csv},zone:AA,start_utc:'2024-01-01'}}"],
        ["grid_zones.csv line 3", "one time zone"],
    ),
    "kilograms": (
        ["run", "fleet=single", "fleet.grid={{path:{grid_kg.csv},zone:AA,start_utc:'2024-01-01'}}"],
        ["grid_kg.csv line 2", "kg/kWh"],
    ),
    "share of a contract": (
        ["run", "fleet=single", "fleet.market={{contract_share:40}}"],
        ["fleet.market.contract_share=40", "[0, 1]"],
    ),
    "market on another basis": (
        ["run", "fleet=single", "fleet.market={{contract_share:0.4,basis:direct}}"],
        ["fleet.market.basis='direct'"],
    ),
    # -- routers
    "no cloud to send to": (["run", "fleet=edge", "router=cloud_only"], ["cloud_only", "cloud site"]),
    "prefers no kind": (["run", "router.prefer=moon"], ["prefer='moon'", "edge"]),
    "old xpu that is not there": (["run", "router=old_xpu_offload"], ["router.old='t4'", "h100_sxm | l4"]),
    "floor that nobody reaches": (["run", "router=carbon_slo", "router.accuracy_floor=0.99"], ["floor=0.99", "mmlu"]),
    "forecast of no kind": (["run", "router=carbon_slo", "router.forecast=weather"], ["'weather'", "persistence"]),
    "forecast beyond its range": (
        ["run", "router=carbon_slo", "router.forecast={{_target_:sim.accounting.forecast.Noisy,sigma:-1}}"],
        ["forecast.sigma=-1", ">= 0"],
    ),
    "cost that nobody knows": (["run", "router=min_cost_slo", f"{POOL}.cost=null"], ["min_cost_slo", "cost is known"]),
    "weight of no signal": (["run", "router=weighted", "+router.weights.luck=1"], ["router.weights.luck=1", "prefix"]),
    "weights of nothing": (
        ["run", "router=weighted", "router.weights={{load:0}}", "router.weights.latency=-1"],
        ["router.weights.latency=-1", ">= 0"],
    ),
    "adapters without slots": (["run", "router=adapter_affinity"], ["adapter_affinity", "engine.adapter_slots"]),
    "share that is none": (["run", "router=bandit", "router.late=2"], ["router.late=2", "[0, 1]"]),
    "router inside without choose": (
        ["run", "router=stale", "router.router={{_target_:sim.accounting.forecast.Oracle}}"],
        ["router.router=", "a router or policy of its own"],
    ),
    "router inside that is none": (
        ["run", "router=stale", "router.router=5"],
        ["router.router=5", "a router or policy of its own"],
    ),
    "private at no kind": (["run", "router=privacy_pin", "router.kinds=[moon]"], ["router.kinds='moon'", "edge"]),
    "share of private requests": (
        ["run", "+workload/traits=private", "workload.privacy.share=2"],
        ["share=2", "0 to 1"],
    ),
    "unknown key of a router": (["run", "+router.colour=red"], ["router.colour='red'", "prefer"]),
    # -- code in a configuration
    "target outside": (["run", "router._target_=os.system"], ["router._target_='os.system'", "sim"]),
    "target outside, deep": (["run", "+workload.arrivals.x={{_target_:os.system}}"], ["workload.arrivals.x._target_"]),
    "target outside, unused": (["run", "+fleet.about.x={{_target_:os.system}}"], ["fleet.about.x._target_"]),
    "target by interpolation": (
        ["run", "--config-dir", "{conf_later}", "router=mine"],
        ["router._target_='os.system'"],
    ),
    "target made by a resolver": (
        ["run", "--config-dir", "{conf_made}", "router=mine"],
        ["router.x._target_='os.system'"],
    ),
    "target is an imported name": (
        ["run", "router._target_=scenarios.compose.os.system"],
        ["router._target_='scenarios.compose.os.system'"],
    ),
    "target is an imported class": (
        ["run", "router._target_=scenarios.compose.Path"],
        ["router._target_='scenarios.compose.Path'", "imported name"],
    ),
    "target is a function": (["run", "router._target_=scenarios.cli.main"], ["scenarios.cli.main", "not a function"]),
    "target does not exist": (["run", "router._target_=sim.routing.static.Nope"], ["sim.routing.static.Nope"]),
    "plug-in that cannot be imported": (
        ["run", "plugins=[my_plugin]", "router._target_=my_plugin.Mine"],
        ["router._target_='my_plugin.Mine'", "PYTHONPATH"],
    ),
    "target in a downloaded folder": (
        ["run", "--config-dir", "{conf_os}", "router=mine"],
        ["router._target_='os.system'"],
    ),
    "folder that trusts itself": (["run", "--config-dir", "{conf_plugin}", "router=mine"], ["plugins=['os']"]),
    "special key of hydra": (["run", "+router._partial_=true"], ["router._partial_=True", "_target_"]),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of the files above by name, of the folders of configuration, and of a folder that is in the way."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "there").mkdir()
    paths = {"there": str(folder / "there")}
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        paths[name] = str(path)
        paths[name.split("/")[0]] = str(folder / name.split("/")[0])
    return paths


def fill(text: str, files: dict[str, str]) -> str:
    """Replace {name} by a path, and doubled braces by single ones."""
    for name, path in files.items():
        text = text.replace(f"{{{name}}}", path)
    return text.replace("{{", "{").replace("}}", "}")


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(
    case: str,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, named = CASES[case]
    monkeypatch.chdir(tmp_path)
    before = snapshot(Path(files["there"]).parent)
    done = run([fill(argument, files) for argument in arguments], capsys)
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("hybridfleet: error: ")
    for words in named:
        assert fill(words, files) in lines[0]
    assert done.status == 2
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []
    assert snapshot(Path(files["there"]).parent) == before


def snapshot(folder: Path) -> list[tuple[str, int]]:
    """Every file and folder below, and its size."""
    return sorted((str(path), path.stat().st_size if path.is_file() else -1) for path in folder.rglob("*"))


@pytest.mark.parametrize("case", ["no such router", "rate is NaN", "target outside", "no such command"])
def test_the_installed_program_says_the_same(case: str, files: dict[str, str], tmp_path: Path) -> None:
    arguments, named = CASES[case]
    program = Path(sys.executable).with_name("hybridfleet")
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert all(fill(words, files) in done.stderr for words in named)
    assert list(tmp_path.iterdir()) == []
