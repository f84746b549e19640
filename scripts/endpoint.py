#!/usr/bin/env python
"""The online endpoints of this machine: see them, route their traffic, stop them and bring them back."""

import argparse
import sys
from pathlib import Path

import localml.needs_venv  # noqa: F401 (before what a Python may lack)

# isort: split
from localml.endpoints import client
from localml.errors import RunError

_STOP_SECONDS = 40.0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="endpoint.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, default=Path(".local"), help="where runs are kept (default .local)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all endpoints, and how each is asked")
    show = commands.add_parser("show", help="one endpoint: deployments, instances, the last minute")
    logs = commands.add_parser("logs", help="what the servers of a deployment have printed")
    traffic = commands.add_parser("traffic", help="share the requests out anew: traffic NAME blue=90 green=10")
    delete = commands.add_parser("delete", help="stop an endpoint and forget it")
    for command in (show, logs, traffic, delete):
        command.add_argument("name")
    logs.add_argument("deployment")
    logs.add_argument("--lines", type=int, default=100)
    traffic.add_argument("shares", nargs="+", metavar="DEPLOYMENT=PERCENT")
    commands.add_parser("stop", help="end all servers; `up` brings them back")
    commands.add_parser("up", help="start what was there, for example after a reboot")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do one thing: 0 done, 1 the host is gone in the middle of it, 2 refused."""
    args = _arguments(argv)
    try:
        {"stop": _stop, "up": _up}.get(args.command, _ask)(args)
        return 0
    except RunError as error:
        print(f"endpoint.py: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"endpoint.py: error: the host of {args.root} went away: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _ask(args: argparse.Namespace) -> None:
    host = client.find_host(args.root)
    if host is None:
        raise RunError(f"no endpoint runs from {args.root}; `endpoint.py up` brings back what was deployed there")
    if args.command == "list":
        _list(host)
        return
    path = client.path_of(args.name)
    if args.command == "show":
        _show(host, path)
    elif args.command == "logs":
        found = host.call("GET", f"{client.path_of(args.name, args.deployment)}/logs?lines={max(1, args.lines)}")
        print("\n".join(found["lines"]))
    elif args.command == "traffic":
        endpoint = host.call("PUT", f"{path}/traffic", {"traffic": dict(_share(text) for text in args.shares)})
        print(f"{args.name}: {_percentages(endpoint['traffic'])}")
    elif args.command == "delete":
        host.call("DELETE", path)
        print(f"{args.name}: deleted")


def _list(host: client.Host) -> None:
    endpoints = host.call("GET", "/onlineEndpoints")["value"]
    if not endpoints:
        print("no endpoints")
    for endpoint in endpoints:
        print(f"{endpoint['name']:<24}{endpoint['scoring_uri']}  {_percentages(endpoint['traffic'])}")
        _say_whether_served(endpoint)


def _say_whether_served(endpoint: dict) -> None:
    if endpoint["error"]:
        print(f"  not served: {endpoint['error']['message']}")


def _show(host: client.Host, path: str) -> None:
    endpoint = host.call("GET", path)
    metrics = host.call("GET", f"{path}/metrics?seconds=60")["deployments"]
    print(f"{endpoint['name']}  {endpoint['scoring_uri']}  {_percentages(endpoint['traffic'])}")
    _say_whether_served(endpoint)
    if any(endpoint["mirror_traffic"].values()):
        print(f"  mirrored: {_percentages(endpoint['mirror_traffic'])}")
    for name in endpoint["deployments"]:
        found = host.call("GET", f"{path}/deployments/{name}")
        print(f"  {name}: {found['provisioning_state']}, {found['model']}")
        if found["error"]:
            print(f"    {found['error']['message']}")
        for instance in found["instances"]:
            state = "healthy" if instance["healthy"] else "not healthy"
            restarts = f", restarted {instance['restarts']} times" if instance["restarts"] else ""
            print(f"    process {instance['pid']} on port {instance['port']}: {state}{restarts}")
        print(f"    last minute: {_last_minute(metrics[name])}")
        if metrics[name]["mirrored"]["num_requests"]:
            print(f"    mirrored:    {_last_minute(metrics[name]['mirrored'])}")
    print(f"try:  {_curl(endpoint['scoring_uri'])}")


def _last_minute(found: dict) -> str:
    text = f"{found['num_requests']} requests, {found['num_failed']} failed, {found['num_client_errors']} refused"
    if found["p50_milliseconds"] is not None:
        text += f", p50 {found['p50_milliseconds']:.0f} ms, p95 {found['p95_milliseconds']:.0f} ms"
    return text


def _curl(uri: str) -> str:
    body = '{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64, "stream": true}'
    return f"curl -N {uri} -H 'Content-Type: application/json' -d '{body}'"


def _share(text: str) -> tuple[str, int]:
    name, _, percent = text.partition("=")
    if not name or not percent.isdecimal():
        raise RunError(f"{text}: not of the form DEPLOYMENT=PERCENT")
    return name, int(percent)


def _percentages(traffic: dict[str, int]) -> str:
    return ", ".join(f"{name} {percent} %" for name, percent in traffic.items()) or "no traffic"


def _up(args: argparse.Namespace) -> None:
    if not (args.root / "endpoints" / "endpoints.json").exists():
        raise RunError(f"nothing was deployed from {args.root}: there is no endpoints/endpoints.json in it")
    _list(client.running_host(args.root))


def _stop(args: argparse.Namespace) -> None:
    if client.is_hosted(args.root):
        client.stop_host(args.root, _STOP_SECONDS)
    ended = client.end_leftovers(args.root)
    print("stopped" + (f"; {ended} servers of a host that was killed, too" if ended else ""))


if __name__ == "__main__":
    sys.exit(main())
