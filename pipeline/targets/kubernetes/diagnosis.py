"""Why a rollout does not get on, in one line with its fix: what cannot heal is certain at once, the rest may wait.

Pure functions over what `kubectl get` says each second. Only `Patience` remembers: since when it sees each finding, by
this machine's own clock, because the cluster's clock may be another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pipeline.targets.diagnosis import SILENT, failing_checks, telling_line
from pipeline.targets.kubernetes.observation import (
    RESOURCES,
    Json,
    Observation,
    condition,
    container_pairs,
    epoch,
    named,
)

__all__ = [
    "RESOURCES",
    "Finding",
    "Observation",
    "Patience",
    "diagnose",
    "ends",
    "examine",
    "log_arguments",
    "refusal",
    "restarts",
    "summary",
    "unbound",
    "with_log",
]

# The order of telling power: what explains more comes first.
KINDS = (
    *("platform", "image", "config", "start", "oom", "crash", "quota", "limits", "admission"),
    *("claim", "unschedulable", "mount", "evicted", "probe", "node", "deadline"),
)
BAD_USAGE = 2  # how the service, and every program that follows the shell's convention, refuses its settings
NO_PROGRAM = (126, 127)  # not executable, not found
CRASHES = 3  # a service whose database is away for a moment may crash twice
CRASH_SECONDS = 10  # and as long as this
SCHEDULING_SECONDS = 15  # another pod may go, another node may come
IMAGE_SECONDS = 5  # a registry of several machines may not have it everywhere yet; the kubelet asks again after 20 s
SYNC_SECONDS = 10  # a Secret may be on its way
HOOK_SECONDS = 20  # an admission webhook may be rolling itself
PATH_SECONDS = 20  # an application may mount its routes late
EVICTIONS = 3
NOT_FOUND = "404"
# What no waiting mends: the program itself is wrong.
PROGRAM_ERRORS = r"(?:ModuleNotFound|Import|Syntax|Indentation|Name)Error\b"
LAST_EVENTS = 5
Container = tuple[str, str]  # its pod's uid, its name


@dataclass(frozen=True)
class Finding:
    """One thing that stops a rollout; `line` is cause and fix.

    `patience`: seconds after which it will not heal by itself any more; None where it may at any time.
    `wants_log`: the log of `container` of `pod` says more, that of its run before this one where `previous`.
    """

    kind: str
    line: str
    pod: str | None = None
    container: str | None = None
    patience: float | None = 0.0
    wants_log: bool = False
    previous: bool = False

    @property
    def certain(self) -> bool:
        """Whether it cannot heal within the rollout, which can stop at once."""
        return self.patience == 0


@dataclass
class Patience:
    """Since when each finding is there, without a break."""

    _since: dict[tuple[str, str | None, str | None, float | None], float] = field(default_factory=dict)

    def settle(self, findings: Iterable[Finding], now: float) -> tuple[Finding, ...]:
        """The FINDINGS at NOW (monotonic seconds): those whose patience has run out are certain, and come first."""
        found = list(findings)
        # Its patience is part of it: when it was None until now, the seconds count from now.
        keys = [(one.kind, one.pod, one.container, one.patience) for one in found]
        self._since = {key: self._since.get(key, now) for key in keys}
        return _ordered(
            replace(one, patience=0.0) if one.patience and now - self._since[key] >= one.patience else one
            for one, key in zip(found, keys, strict=True)
        )


def diagnose(seen: Observation, release: str | None = None, name: str = "backend") -> tuple[Finding, ...]:
    """What stops the rollout of the Deployment NAME to RELEASE (None: whatever is newest); empty while all is well.

    Pods of older ReplicaSets are not looked at. Certain findings first, then by telling power.
    """
    deployment = seen.deployment(name)
    if deployment is None:
        return ()
    made = seen.newest_replicaset(deployment, release)
    progress = condition(deployment, "Progressing")
    findings = []
    if made:
        findings += _refused(seen, made) + examine(seen, seen.owned(seen.pods, made))
    elif progress.get("status") == "False" and progress.get("reason") == "ReplicaSetCreateError":
        findings.append(refusal(progress.get("message", ""), f"the ReplicaSet of Deployment {name}"))
    if made and progress.get("reason") == "ProgressDeadlineExceeded":
        seconds = deployment["spec"].get("progressDeadlineSeconds", 600)
        late = f"Deployment {name} made no progress for {seconds} s (its progressDeadlineSeconds)"
        # What was waited for until now has had its time.
        findings = [*(replace(one, patience=0.0) for one in findings), Finding("deadline", late)]
    return _merged(findings)


def ends(seen: Observation) -> dict[Container, int]:
    """How often each container has ended."""
    return {_key(pod, spec): _crashes(status) for pod in seen.pods for spec, status, _ in container_pairs(pod)}


def restarts(
    seen: Observation,
    release: str | None = None,
    before: Mapping[Container, int] = MappingProxyType({}),
    *,
    since: float = 0.0,
) -> tuple[Finding, ...]:
    """The crashes and OOM kills of the pods of RELEASE, also of those that are ready again: for a bake time.

    BEFORE: what `ends` said when the deploy began. A rollback may find pods that ended long ago, with their node.
    SINCE: seconds since the Unix epoch; what ended before is history.
    """
    name = "backend"
    deployment = seen.deployment(name)
    made = seen.newest_replicaset(deployment, release) if deployment else None
    pods = seen.owned(seen.pods, made) if made else []
    pairs = [(pod, spec, status) for pod in pods for spec, status, ends in container_pairs(pod) if not ends]
    fresh = [one for one in pairs if _crashes(one[2]) > before.get(_key(one[0], one[1]), 0)]
    found = (_ended(seen, *one) for one in fresh if _end_time(one[2]) >= since)
    return _merged(replace(one, patience=0.0) for one in found if one)


def examine(seen: Observation, pods: Iterable[Json]) -> list[Finding]:
    """The findings of PODS, whoever made them: a Deployment, a StatefulSet, a Job."""
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    pods = [pod for pod in staying if pod["status"].get("phase") != "Succeeded"]
    evicted = [pod for pod in pods if pod["status"].get("phase") == "Failed" and pod["status"].get("reason")]
    found = [_evicted(pod, len(evicted)) for pod in evicted]
    return found + [one for pod in pods if pod not in evicted and (one := _pod(seen, pod))]


def summary(seen: Observation, name: str = "backend") -> str:
    """The last warnings about the Deployment NAME and what it made, newest first: for what no finding explains."""
    deployment = seen.deployment(name)
    if deployment is None:
        return f"there is no Deployment {name}"
    made = seen.newest_replicaset(deployment)
    objects = [deployment, *([made, *seen.owned(seen.pods, made)] if made else [])]
    uids = {item["metadata"]["uid"] for item in objects}
    events = [one for one in seen.events if one.get("type") != "Normal" and one["involvedObject"].get("uid") in uids]
    said = [f"{event['reason']}: {_one_line(event.get('message', ''))}{_times(_count(event))}" for event in events]
    # `Error: ErrImagePull` and the like repeat in a word what another event explains.
    telling = list(dict.fromkeys(one for one in reversed(said) if "Failed: Error: " not in one))
    return "; ".join(telling[:LAST_EVENTS]) or f"nothing is said of it: `kubectl describe deployment {name}`"


def with_log(finding: Finding, log: str) -> Finding:
    """FINDING with what the LOG of its container says last, which may make it certain."""
    if "exec format error" in log:
        line = f"pod {finding.pod}: {_FOREIGN}"
        return replace(finding, kind="platform", line=line, patience=0.0, wants_log=False)
    said = telling_line(log.splitlines())
    patience = 0.0 if finding.kind == "crash" and re.match(PROGRAM_ERRORS, said) else finding.patience
    silent = finding.kind == "probe" and said == SILENT  # the probe's answer has said it
    return replace(
        finding, line=finding.line if silent else f"{finding.line}: {said}", patience=patience, wants_log=False
    )


def log_arguments(finding: Finding, lines: int = 200) -> list[str]:
    """What follows `kubectl` to read the log that FINDING wants."""
    named_container = ["--container", finding.container] if finding.container else []
    previous = ["--previous"] if finding.previous else []
    return ["logs", str(finding.pod), *named_container, *previous, f"--tail={lines}"]


def _ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: (not one.certain, KINDS.index(one.kind))))


def _merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Of findings that differ by their pods alone one, which says how many more there are."""
    same: dict[str, list[Finding]] = {}
    for one in _ordered(findings):
        same.setdefault(f"{one.kind} {one.line.replace(one.pod or '', '')}", []).append(one)
    return tuple(
        replace(first, line=f"{first.line} (and {len(more)} more pod{'s' if len(more) > 1 else ''})") if more else first
        for first, *more in same.values()
    )


def _pod(seen: Observation, pod: Json) -> Finding | None:
    """The first thing that stops POD."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _claim(seen, pod) or _unschedulable(seen, pod, scheduled)
    if lost := _node(seen, pod):
        return lost
    pairs = container_pairs(pod)
    for spec, status, ends in pairs:
        if one := _container(seen, pod, spec, status, ends=ends):
            return one
    starting = ("ContainerCreating", "PodInitializing")
    waiting = [status for _, status, _ in pairs if _waiting(status).get("reason") in starting]
    return _mount(seen, pod) if waiting or not pairs else None


def _container(seen: Observation, pod: Json, spec: Json, status: Json, *, ends: bool) -> Finding | None:
    waiting = _waiting(status)
    reason, message = waiting.get("reason", ""), _one_line(waiting.get("message", ""))
    if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"):
        return _image(seen, pod, spec, waiting)
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return (_config if reason == "CreateContainerConfigError" else _start)(pod, spec, message)
    if ends and status["state"].get("terminated", {}).get("exitCode") == 0:
        return None
    if _crashes(status) and (not status.get("ready") or _out_of_memory(status)):
        return _ended(seen, pod, spec, status)
    if "running" in status["state"] and not status.get("ready"):
        return _unready(seen, pod, spec)
    return None


# --- images ---

_FOREIGN = "its image is of another architecture than its node: build and push it for the nodes' platform"


_IMAGE_CAUSES: tuple[tuple[str, str, float | None, str], ...] = (
    (r"InvalidImageName", "`{image}` is no image name: mend `images:` of the overlay", 0.0, "image"),
    (
        r"ErrImageNeverPull",
        "its node has no image {image} and may not pull it: load it, or mend imagePullPolicy",
        0.0,
        "image",
    ),
    (
        r"no match for platform|does not match the specified platform",
        "image {image} has nothing for its node's architecture: push it for that platform too",
        0.0,
        "platform",
    ),
    (
        r"(?i)unauthorized|denied|authoriz|forbidden|\b40[13]\b",
        "the registry refuses image {image}: mend imagePullSecrets, or the name",
        IMAGE_SECONDS,
        "image",
    ),
    (
        r"not found|manifest unknown|name unknown|NotFound",
        "image {image} is not in its registry: push it, or mend the name",
        IMAGE_SECONDS,
        "image",
    ),
    (
        r"server gave HTTP response to HTTPS client|x509:",
        "its node does not trust the registry of {image} ({why}): mend the node's trust, or the name",
        IMAGE_SECONDS,
        "image",
    ),
    (r"", "its node cannot reach the registry of {image} ({why}): tried again", None, "image"),
)


def _image(seen: Observation, pod: Json, spec: Json, waiting: Json) -> Finding:
    name, said = named(pod), f"{waiting['reason']} {_one_line(waiting.get('message', ''))}"
    events = [one for one in seen.events_of(pod, "Failed") if spec["image"] in one.get("message", "")]
    if "Back-off" in said and "Pull: " not in said and events:
        said = events[-1]["message"]  # older kubelets do not repeat the cause while they wait
    kind, text, patience = next(
        (kind, text, wait) for cause, text, wait, kind in _IMAGE_CAUSES if re.search(cause, said)
    )
    line = f"pod {name}: {text.format(image=_short_image(spec['image']), why=_reason_of(said))}"
    return Finding(kind, line, pod=name, container=spec["name"], patience=patience)


def _short_image(image: str) -> str:
    return re.sub(r"(@sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1…", image)


def _reason_of(said: str) -> str:
    """The end of a chain of Go's errors, which is the cause."""
    told = _one_line(said).split('": ', 1)[-1].rstrip('" ')
    return ": ".join(told.split(": ")[-2:])[:160]


# --- configuration ---


def _config(pod: Json, spec: Json, message: str) -> Finding:
    name = named(pod)
    if "failed to sync" in message:  # the kubelet's cache, not the object
        return Finding("config", f"pod {name}: {message}: tried again", pod=name, patience=None)
    fix = ""
    if missing := re.search(r'(secret|configmap) "([^"]+)" not found', message):
        fix = f": create the {_kind(missing[1])} {missing[2]}"
    elif missing := re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) \S+?/(\S+)", message):
        fix = f": add the key {missing[1]} to the {missing[2]} {missing[3]}"
    elif "runAsNonRoot" in message:
        message = message.partition(" (pod:")[0]
        fix = ": give the image a numeric USER, or set runAsUser"
    return Finding("config", f"pod {name}: {message}{fix}", pod=name, container=spec["name"])


def _kind(word: str) -> str:
    return {"secret": "Secret", "configmap": "ConfigMap"}[word.lower()]


def _start(pod: Json, spec: Json, message: str) -> Finding:
    name = named(pod)
    if "exec format error" in message:
        return Finding("platform", f"pod {name}: {_FOREIGN}", pod=name, container=spec["name"])
    told = re.search(r'exec: "[^"]+": .*?(?=: unknown|$)', message)
    cause = told[0] if told else _reason_of(message)
    line = f"pod {name}: its container {spec['name']} cannot start: {cause}: mend its command or its image"
    return Finding("start", line, pod=name, container=spec["name"], patience=SYNC_SECONDS if not told else 0)


def _mount(seen: Observation, pod: Json) -> Finding | None:
    events = seen.events_of(pod, "FailedMount|FailedAttachVolume|FailedCreatePodSandBox")
    if not events:
        return None
    name, message = named(pod), _one_line(events[-1].get("message", ""))
    if missing := re.search(r'(secret|configmap) "([^"]+)" not found', message):
        line = f"pod {name}: its volume needs the {_kind(missing[1])} {missing[2]}, which is not there: create it"
        return Finding("config", line, pod=name, patience=SYNC_SECONDS)
    if missing := re.search(r"references non-existent (secret|config) key: (\S+)", message):
        line = f"pod {name}: its volume needs the key {missing[2]}, which its {missing[1]} lacks: add it"
        return Finding("config", line, pod=name, patience=SYNC_SECONDS)
    return Finding(
        "mount", f"pod {name}: {events[-1]['reason']}: {message[:300]}: tried again", pod=name, patience=None
    )


# --- containers that ended ---


def _waiting(status: Json) -> Json:
    return status["state"].get("waiting") or {}


def _last_end(status: Json) -> Json:
    return status["state"].get("terminated") or status.get("lastState", {}).get("terminated") or {}


def _end_time(status: Json) -> float:
    return epoch(_last_end(status).get("finishedAt"))


def _key(pod: Json, spec: Json) -> Container:
    return pod["metadata"]["uid"], spec["name"]


def _crashes(status: Json) -> int:
    """How often it has ended."""
    back_off = _waiting(status).get("reason") == "CrashLoopBackOff"  # it ended, and is not counted as restarted yet
    return int(status.get("restartCount", 0)) + ("terminated" in status["state"] or back_off)


def _out_of_memory(status: Json) -> bool:
    return _last_end(status).get("reason") == "OOMKilled"


def _ended(seen: Observation, pod: Json, spec: Json, status: Json) -> Finding | None:
    name, end = named(pod), _last_end(status)
    if not end:
        return None  # its restart is counted before its end is told
    if _out_of_memory(status):
        limit = spec.get("resources", {}).get("limits", {}).get("memory")
        at = f"at its memory limit of {limit}" if limit else "because its node ran out of memory"
        line = f"pod {name}: its container {spec['name']} was killed {at}: raise resources.limits.memory, or use less"
        return Finding("oom", line, pod=name, container=spec["name"])
    code, running = end.get("exitCode"), "running" in status["state"]
    if end.get("reason") in ("StartError", "ContainerCannotRun"):
        return _start(pod, spec, _one_line(end.get("message", "")))
    crashes = _crashes(status)
    over = pod["status"].get("phase") == "Failed"  # of a Job: nobody starts it again
    for_good = over or code == BAD_USAGE or code in NO_PROGRAM or _crashed_enough(pod, end, crashes, running=running)
    patience = 0.0 if for_good else None
    killed = seen.events_of(pod, "Killing")
    if killed and (probe := re.search(r"failed (liveness|startup) probe", killed[-1].get("message", ""))):
        said = _answer(_unhealthy(seen, pod, probe[1].capitalize())) or "failed"
        line = f"pod {name}: killed by its {probe[1]} probe{_times(crashes)}: {said}"
        return Finding("probe", line, name, spec["name"], patience, wants_log=True, previous=running)
    what = {137: "was killed (SIGKILL)", 139: "crashed (SIGSEGV)", 143: "was ended (SIGTERM)"}.get(
        code or 0, f"ended with exit code {code}"
    )
    line = f"pod {name}: its container {spec['name']} {what}{_times(crashes)}"
    return Finding("crash", line, name, spec["name"], patience, wants_log=True, previous=running)


def _crashed_enough(pod: Json, end: Json, crashes: int, *, running: bool) -> bool:
    """By the kubelet's clock alone, which wrote both times."""
    lasted = epoch(end.get("finishedAt")) - epoch(pod["status"].get("startTime"))
    return crashes >= CRASHES and not running and lasted >= CRASH_SECONDS


# --- probes ---


def _unhealthy(seen: Observation, pod: Json, probe: str) -> Json:
    events = [one for one in seen.events_of(pod, "Unhealthy") if one.get("message", "").startswith(probe)]
    return events[-1] if events else {}


def _unready(seen: Observation, pod: Json, spec: Json) -> Finding | None:
    name = named(pod)
    for probe in ("Startup", "Readiness"):
        event = _unhealthy(seen, pod, probe)
        answer = _answer(event)
        if not answer:
            continue
        asked = spec.get(f"{probe.lower()}Probe", {}).get("httpGet", {})
        path = f" GET {asked['path']}" if asked.get("path") else ""
        line = f"pod {name}: not ready: its {probe.lower()} probe{path}: {answer}{_times(_count(event))}"
        # A database that comes back makes it ready; a path that is none stays none.
        if NOT_FOUND in answer.split():
            return Finding("probe", f"{line}: mend the probe's path", name, spec["name"], PATH_SECONDS)
        return Finding("probe", line, name, spec["name"], patience=None, wants_log=True)
    return None


def _answer(event: Json) -> str:
    """What a probe was told, in words; empty where there is no EVENT."""
    said = re.sub(r"^\w+ probe (failed|errored[^:]*): ?", "", event.get("message", "")).strip()
    if answered := re.search(r"statuscode: (\d+)", said):
        return f"answered {answered[1]}"
    if "connection refused" in said:
        port = re.search(r":(\d+): connect", said)
        return f"nothing listens on port {port[1]}" if port else "nothing listens"
    if "deadline exceeded" in said or "Client.Timeout" in said or "timed out" in said:
        return "no answer in time"
    status, _, body = said.partition(" ")
    return f"answered {status}: {failing_checks(body)}" if status.isdigit() and body else _one_line(said)[:200]


# --- nodes and storage ---


def _unschedulable(seen: Observation, pod: Json, scheduled: Json) -> Finding:
    name, message = named(pod), _one_line(scheduled.get("message", ""))
    told = re.search(r"nodes are available: (.*?)\.(?: |$)", message)
    reasons = told[1] if told else message
    lacking = re.findall(r"Insufficient ([\w./-]+)", reasons)
    asked = ", ".join(f"{what} {amount}" for what in lacking if (amount := _requested(pod, what)))
    fix = "mend nodeSelector, affinity or tolerations"
    if lacking:
        wants = f" (it requests {asked})" if asked else ""
        fix = f"lower its requests, or add a node{wants}"
    elif "Too many pods" in reasons:
        fix = "add a node"
    elif claim := re.search(r'persistentvolumeclaim "([^"]+)" not found', reasons):
        fix = f"create the PersistentVolumeClaim {claim[1]}"
    coming = pod["status"].get("nominatedNodeName") or seen.events_of(pod, "TriggeredScaleUp|Nominated")
    # A node that starts, ends or is drained is back, or its pods elsewhere, in a while.
    healing = re.search(r"node\.kubernetes\.io/|were unschedulable", reasons) or seen.room_to_come
    patience = None if coming or healing else SCHEDULING_SECONDS
    return Finding("unschedulable", f"pod {name} fits no node: {reasons[:300]}: {fix}", pod=name, patience=patience)


def _requested(pod: Json, resource: str) -> str:
    """What its containers request of RESOURCE."""
    amounts = [one.get("resources", {}).get("requests", {}).get(resource) for one in pod["spec"]["containers"]]
    return " + ".join(str(amount) for amount in amounts if amount)


def _claim(seen: Observation, pod: Json) -> Finding | None:
    names = [
        one["persistentVolumeClaim"]["claimName"]
        for one in pod["spec"].get("volumes", ())
        if "persistentVolumeClaim" in one
    ]
    found = (_unbound(seen, claim) for claim in seen.claims if named(claim) in names)
    return next((replace(one, pod=named(pod)) for one in found if one), None)


def unbound(seen: Observation) -> list[Finding]:
    """The claims whose storage is not there, whoever uses them."""
    return [one for claim in seen.claims if (one := _unbound(seen, claim))]


def _unbound(seen: Observation, claim: Json) -> Finding | None:
    events = seen.events_of(claim, "ProvisioningFailed|FailedBinding|VolumeMismatch")
    phase = claim["status"].get("phase", "Pending")
    if phase == "Bound" or (not events and phase != "Lost"):
        return None
    said = _one_line(events[-1].get("message", "")) if events else "its volume is gone"
    line = f"PersistentVolumeClaim {named(claim)} is {phase.lower()}: {said[:300]}"
    fix = "bring its volume back, or restore a backup into a new claim" if phase == "Lost" else ""
    if "storageclass" in said:
        wanted = claim["spec"].get("storageClassName")
        fix = f"make the storage class {wanted}, or name one of `kubectl get storageclass`"
    permanent = fix or "no storage class is set" in said
    return Finding("claim", f"{line}{f': {fix}' if fix else ''}", patience=SYNC_SECONDS if permanent else None)


def _node(seen: Observation, pod: Json) -> Finding | None:
    """The pod says not ready where its containers say ready, or the node does not say anything: the node is away."""
    ready = condition(pod, "Ready")
    events = seen.events_of(pod, "NodeNotReady")
    unknown = ready.get("status") == "Unknown" or pod["status"].get("reason") == "NodeLost"
    contradicts = ready.get("status") == "False" and all(
        status.get("ready") for _, status, ends in container_pairs(pod) if not ends
    )
    if not unknown and not (events and contradicts and pod["status"].get("containerStatuses")):
        return None
    node = pod["spec"].get("nodeName", "?")
    line = f"pod {named(pod)}: its node {node} does not answer: `kubectl describe node {node}`"
    return Finding("node", line, pod=named(pod), patience=None)


def _evicted(pod: Json, how_many: int) -> Finding:
    status = pod["status"]
    line = f"pod {named(pod)}: {status['reason']}: {_one_line(status.get('message', ''))[:300]}"
    return Finding("evicted", line, pod=named(pod), patience=0.0 if how_many >= EVICTIONS else None)


# --- refused by the API server ---


def _refused(seen: Observation, replicaset: Json) -> list[Finding]:
    """That its pods are not even made, by its condition: the events of a ReplicaSet that is taken again may be old."""
    failure = condition(replicaset, "ReplicaFailure")
    if failure.get("status") != "True" or failure.get("reason") != "FailedCreate":
        return []
    wanted, there = replicaset["spec"].get("replicas", 0), replicaset.get("status", {}).get("replicas", 0)
    if there >= wanted:
        return []
    found = refusal(failure.get("message", ""), f"pods of ReplicaSet {named(replicaset)}")
    if found.kind == "quota" and seen.room_to_come:
        found = replace(found, patience=None)
    return [found]


def refusal(message: str, what: str) -> Finding:
    """Why the API server refuses WHAT ("pods of …"), by the MESSAGE of an event, a condition or kubectl."""
    message = _one_line(message)
    for kind, pattern, fix, patience in _REFUSALS:
        if found := re.search(pattern, message):
            words = {key: value for key, value in found.groupdict().items() if value}
            return Finding(kind, f"{what} are refused: {fix.format(**words)}", patience=patience)
    return Finding("admission", f"{what} are refused: {message[:300]}", patience=HOOK_SECONDS)


_REFUSALS: tuple[tuple[str, str, str, float | None], ...] = (
    (
        "quota",
        r"exceeded quota: (?P<name>[^,]+), requested: (?P<more>.*?), used: (?P<used>.*?), limited: (?P<limited>.*)",
        "quota {name} allows {limited}, {used} are used and {more} more needed: raise it, or lower requests",
        0.0,
    ),
    ("quota", r"failed quota: (?P<name>[^:]+): (?P<must>.*)", "quota {name}: {must}: set it in the overlay", 0.0),
    (
        "admission",
        r'violates PodSecurity "(?P<level>[^"]+)": (?P<why>.*)',
        "Pod Security {level}: {why}: mend securityContext",
        0.0,
    ),
    (
        "limits",
        r"is forbidden: (?P<why>\[?(?:maximum|minimum|max |cpu max|memory max).*)",
        "the namespace's LimitRange: {why}: mend resources",
        0.0,
    ),
    (
        "config",
        r'serviceaccount "(?P<name>[^"]+)" not found',
        "there is no ServiceAccount {name}: create it, or mend serviceAccountName",
        SYNC_SECONDS,
    ),
    (
        "admission",
        r'admission webhook "(?P<name>[^"]+)" denied the request:? ?(?P<why>.*)',
        "admission webhook {name} says: {why}",
        0.0,
    ),
    (
        "admission",
        r"ValidatingAdmissionPolicy '(?P<name>[^']+)' .*?denied request: (?P<why>.*)",
        "ValidatingAdmissionPolicy {name} says: {why}",
        0.0,
    ),
    (
        "admission",
        r'failed calling webhook "(?P<name>[^"]+)": (?P<why>.*)',
        "admission webhook {name} does not answer ({why}): mend it, or its failurePolicy",
        HOOK_SECONDS,
    ),
    (
        "admission",
        r"(?P<why>.*(?:etcdserver|Internal error|connection refused|timed? ?out).*)",
        "{why}: tried again",
        None,
    ),
)


# --- words ---


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _count(event: Mapping[str, Any]) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""
