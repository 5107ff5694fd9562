"""Whether a plan may go on with a run that an earlier plan began: what it computes must be the same."""

import re
from collections.abc import Iterator
from typing import Any

from dinomx_core.errors import Problem
from dinomx_core.planning.plan import Plan

# What may change between two parts of a run: none of it alters what a step computes.
FREE = re.compile(
    r"run\.(out|name|max_hours|steps)|log\..*|checkpoint\..*|health\..*|loader\.(workers|prefetch|max_unreadable)"
    r"|evaluate\.[^.]+\.every|parallelism\..*|report\..*|tracker\..*"
)


def differences(plan: Plan, saved: dict[str, Any], place: str) -> list[Problem]:
    """Why `plan` does not go on with the run whose `plan.json` is `saved`; `place` names that file."""
    return list(dict.fromkeys(_differences(plan, saved, place)))


def _differences(plan: Plan, saved: dict[str, Any], place: str) -> Iterator[Problem]:
    now = plan.to_json()
    remedy = "; the run cannot go on with it: put it back, or start another with another run.name"
    before, after = ({k: v["value"] for k, v in table["values"].items()} for table in (saved, now))
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old != new and not FREE.fullmatch(key):
            source = now["values"].get(key, {}).get("source", "")
            yield Problem(f"is {_show(new)} and was {_show(old)} in {place}{remedy}", key, source)
    orders = [list(dict.fromkeys(k.split(".")[1] for k in v if k.startswith("strategy."))) for v in (before, after)]
    if orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]):
        yield Problem(f"are applied as {orders[1]} and were as {orders[0]} in {place}{remedy}", "strategies")
    if saved["data"]["count"] != now["data"]["count"]:
        counts = f"holds {now['data']['count']} images and held {saved['data']['count']}"
        yield Problem(f"{counts}; the order of the images would be another{remedy}", "data")
    elif saved["data"]["digest"] != now["data"]["digest"]:
        yield Problem(f"holds as many images, but others: names were added, taken out or changed{remedy}", "data")
    if saved["steps"] == now["steps"]:
        return
    for key, curve in now["schedules"].items():
        old = saved["schedules"].get(key)
        falls = curve["peak"] != curve["end"]
        rises = curve["warmup"] > 0 and curve["start"] != curve["peak"]
        matters = {"warmup": rises or falls, "decay": falls, "hold": rises or falls}
        changed = [name for name, does in matters.items() if does and old and old[name] != curve[name]]
        if changed:
            yield Problem(
                f"another number of steps ({saved['steps']} before, {now['steps']} now) changes {key}: give its "
                f"{' and '.join(changed)} in steps ({key}.{changed[0]} = {old[changed[0]]} is what the run began with)", "run.steps",
            )  # fmt: skip
    for key, length in now["lengths"].items():
        old = saved["lengths"].get(key)
        scheduled = key.rpartition(".")[0] in now["schedules"]
        if old != length and not scheduled and not FREE.fullmatch(key):
            yield Problem(
                f"another number of steps changes {key} from {old} to {length}: give it in steps", "run.steps"
            )


def _show(value: Any) -> str:
    return "not set" if value is None else repr(value)


def changed_versions(plan: Plan, saved: dict[str, Any]) -> str:
    """What differs in the packages, the device and the processes, in words, or ""."""
    before, now = saved["env"]["versions"], plan.env.versions
    changed = [f"{name} {before[name]} -> {now[name]}" for name in now if before.get(name) not in (None, now[name])]
    if saved["device"] != plan.device:
        changed.append(f"device {saved['device']} -> {plan.device}")
    if saved["env"]["cores"] != plan.env.cores and not plan.spec.run.threads:
        changed.append(f"cores {saved['env']['cores']} -> {plan.env.cores} (run.threads fixes their number)")
    if saved["batch"]["world_size"] != plan.batch.world_size:
        changed.append(f"processes {saved['batch']['world_size']} -> {plan.batch.world_size}")
    return ", ".join(changed)
