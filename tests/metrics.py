"""What a service tells Prometheus, read as Prometheus reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of `/metrics`: the value of each series, by its name and its labels."""

    series: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def of(cls, text: str) -> Scrape:
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
        )

    def __call__(self, name: str, **labels: str) -> float:
        """The sum over all series of that name and with these labels among theirs."""
        return math.fsum(
            value
            for (known, own), value in self.series.items()
            if known == name and labels.items() <= own
        )

    def labels(self) -> dict[str, set[str]]:
        """The names of the labels that each metric has."""
        found: dict[str, set[str]] = {}
        for name, labels in self.series:
            found.setdefault(name, set()).update(label for label, _ in labels)
        return found
