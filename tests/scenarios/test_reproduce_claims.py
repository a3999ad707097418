"""Claims about policies: two scenarios each on common seeds, and a verdict that follows the sign of what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.stats import Interval
from analysis.study import FAILS, HOLDS, UNTESTED
from scenarios.cli import main
from scenarios.studies.paired_claims import Judged, Paired, _claim
from sim.hardware.catalogue import CONF

SHIPPED = yaml.safe_load((CONF / "study" / "policy_claims.yaml").read_text(encoding="utf-8"))


def preset(folder: Path, **claims: dict[str, Any]) -> list[str]:
    """Arguments of a study of one's own with these claims."""
    (folder / "study").mkdir()
    values = {**SHIPPED, "seeds": 3, "processes": 1, "claims": claims}
    (folder / "study" / "mine.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return ["reproduce", "mine", "--config-dir", str(folder), "--json"]


def shipped(name: str, **changes: Any) -> dict[str, Any]:
    claim = {**SHIPPED["claims"][name], **changes}
    return {**claim, "scenario": [*claim.get("scenario", []), "workload.limit=60"]}


def test_a_verdict_follows_the_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near, far = shipped("carbon_aware"), shipped("specedge_far")
    arguments = preset(tmp_path, near=near, opposite={**near, "rises": True}, far=far)
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert [claim["verdict"] for claim in found["claims"]] == [HOLDS, FAILS, HOLDS]
    rows = {row["claim"]: row for row in found["tables"]["intervals"]}
    assert rows["near"]["with"] < rows["near"]["without"]
    assert rows["near"]["difference low"] < rows["near"]["high"] < 0.0
    assert rows["far"]["with"] > 2 * rows["far"]["without"]  # a round trip of half a second in every round


def test_what_does_not_run_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = shipped(
        "disco_tail", policy=["router=speculative_edge_draft", "router.acceptance=0.5"]
    )  # nothing joins them
    assert main(preset(tmp_path, claim=claim)) == 0
    (judged,) = json.loads(capsys.readouterr().out)["claims"]
    assert judged["verdict"] == UNTESTED
    assert "link" in judged["evidence"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "ttft_p98_s"}, "claims.claim.metric='ttft_p98_s' is not valid"),
        ({"policy": ["router=nobody"]}, "claims.claim.policy: router='nobody' is not valid"),
        ({"ratio": 2}, "claims.claim.ratio"),
        ({"rises": "up"}, "claims.claim.rises='up' is not valid"),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str) -> None:
    assert main(preset(tmp_path, claim=shipped("carbon_aware", **changes))) == 2
    assert message in capsys.readouterr().err


def test_a_difference_within_its_interval_is_no_agreement() -> None:
    claim = Paired("it falls", "-5 %", "somewhere", "cost", False, {"instead": [], "policy": []})
    values = {"instead": Interval(2.0, 0.1, 5), "policy": Interval(1.9, 0.1, 5)}
    for half_width, verdict in ((0.05, HOLDS), (0.2, FAILS)):
        judged = _claim(claim, Judged(values, Interval(-0.1, half_width, 5)))
        assert judged.verdict == verdict
        assert "2.00 -> 1.90" in judged.evidence
        assert "-5 %" in judged.evidence
