"""Which request goes where: percentages kept as evenly as whole requests allow."""


class Shares:
    """Picks names in proportion to their weights, evenly: 10 % is one in every ten, not one in ten by chance."""

    def __init__(self, weights: dict[str, int]) -> None:
        self._weights = {name: weight for name, weight in weights.items() if weight}
        self._total = sum(self._weights.values())
        self._credit = dict.fromkeys(self._weights, 0)

    def next(self) -> str | None:
        """The name for this request; None where no name has a weight."""
        if not self._weights:
            return None
        for name, weight in self._weights.items():
            self._credit[name] += weight
        chosen = max(self._credit, key=self._credit.__getitem__)
        self._credit[chosen] -= self._total
        return chosen


class Mirror:
    """Says for which requests a copy goes to the mirrored deployment."""

    def __init__(self, mirror_traffic: dict[str, int]) -> None:
        self._name, percent = next(((name, p) for name, p in mirror_traffic.items() if p), (None, 0))
        self._shares = Shares({"copy": percent, "none": 100 - percent})

    def next(self) -> str | None:
        """The deployment that gets a copy of this request, or None."""
        return self._name if self._shares.next() == "copy" else None
