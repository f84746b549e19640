"""Requests, failures and p95 of each deployment of a managed online endpoint, from Azure Monitor."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from rollout_target import Counts

MINUTE = "PT1M"  # the finest that the service has
MAX_SERIES = 100


class EndpointMetrics:
    def __init__(self, monitor: Any, endpoint_id: str) -> None:
        self._monitor, self._endpoint_id = monitor, endpoint_id

    def of_last(self, seconds: float) -> dict[str, Counts]:
        """The whole minutes of the last ``seconds``; the latest of them reach Azure Monitor one to three minutes late.

        The p95 is the mean of the minutes' p95, since they cannot be put together exactly.
        """
        until = datetime.now(UTC).replace(second=0, microsecond=0)
        since = until - timedelta(minutes=max(1, int(seconds // 60)))
        timespan = f"{since:%Y-%m-%dT%H:%M:%SZ}/{until:%Y-%m-%dT%H:%M:%SZ}"
        requests: dict[str, float] = defaultdict(float)
        failed: dict[str, float] = defaultdict(float)
        p95: dict[str, list[float]] = defaultdict(list)
        for labels, values in self._series(
            "RequestsPerMinute", timespan, "deployment", "statusCode", "modelStatusCode"
        ):
            requests[labels["deployment"]] += sum(values)
            if is_failure(labels.get("statuscode", ""), labels.get("modelstatuscode", "")):
                failed[labels["deployment"]] += sum(values)
        for labels, values in self._series("RequestLatency_P95", timespan, "deployment"):
            p95[labels["deployment"]] += values
        return {
            name: Counts(
                num_requests=round(requests[name]),
                num_failed=round(failed[name]),
                p95_seconds=sum(p95[name]) / len(p95[name]) / 1000 if p95[name] else None,
            )
            for name in requests
        }

    def _series(self, metric: str, timespan: str, *dimensions: str) -> list[tuple[dict[str, str], list[float]]]:
        answer = self._monitor.metrics.list(
            self._endpoint_id,
            timespan=timespan,
            interval=MINUTE,
            metricnames=metric,
            aggregation="Average",  # of a metric that has one value a minute
            filter=" and ".join(f"{name} eq '*'" for name in dimensions),
            top=MAX_SERIES,
        )
        found = []
        for series in (series for metric in answer.value for series in metric.timeseries):
            labels = {one.name.value.lower(): one.value for one in series.metadatavalues or []}
            values = [point.average for point in series.data or [] if point.average is not None]
            if "deployment" in labels and values:
                found.append((labels, values))
        return found


def is_failure(status: str, model_status: str) -> bool:
    """Whether a request failed through no fault of the client: 408 is a timeout, 424 any error of the model's own.

    What the model answered then is ``model_status``, which may say that the client was wrong after all.
    """
    return status.startswith("5") or status == "408" or (status == "424" and not model_status.startswith("4"))
