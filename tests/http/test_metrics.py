"""What services tell of themselves to Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from caterva2.http.metrics import Metrics
from caterva2.source.budget import Budget


@dataclass
class Stats:
    misses: int = 3
    waiting: int = 2
    name: str = "no number"


def families(metrics: Metrics) -> dict:
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


def value_of(metrics: Metrics, name: str) -> float:
    return families(metrics)[name].samples[0].value


def test_numbers_of_statistics_are_counters_or_gauges() -> None:
    metrics = Metrics("x")
    metrics.add_stats("part", Stats())
    found = families(metrics)
    assert {name: family.type for name, family in found.items() if "part" in name} == {
        "caterva2_x_part_misses": "counter",
        "caterva2_x_part_waiting": "gauge",
    }


async def test_what_is_bounded_is_exported_with_its_bound() -> None:
    metrics, budget = Metrics("x"), Budget(100)
    metrics.add_budget(budget)
    with await budget.lease(30):
        assert value_of(metrics, "caterva2_x_answers_bytes") == 30
        assert value_of(metrics, "caterva2_x_answers_bytes_limit") == 100
    assert value_of(metrics, "caterva2_x_answers_bytes") == 0
