"""What stops a container of a pod: its image, its configuration, its end, its probes. Pure, from what the API says."""

from __future__ import annotations

import re

from pipeline.system.text import shorten
from pipeline.targets.common.diagnosis import failing_checks
from pipeline.targets.kubernetes.rollout.findings import SYNC_SECONDS, Finding, count_of, one_line, times
from pipeline.targets.kubernetes.rollout.observation import Json, Observation, epoch, named

__all__ = [
    "FOREIGN_PROGRAM",
    "ContainerId",
    "container_finding",
    "container_id",
    "crashes_of",
    "end_time",
    "ended",
    "mount",
    "waiting_of",
]

BAD_USAGE = 2  # how the service, like every program that follows the shell's convention, refuses its settings
NO_PROGRAM = (126, 127)  # not executable, not found
CRASHES = 3  # a service whose database is away for a moment may crash twice
CRASH_SECONDS = 10  # and be away for as long as this
IMAGE_SECONDS = 5  # a registry of several machines may not have it everywhere yet; the kubelet asks again after 20 s
PATH_SECONDS = 20  # an application may mount its routes late
NOT_FOUND = "404"
ContainerId = tuple[str, str]  # the uid of its pod, its name


def container_finding(seen: Observation, pod: Json, spec: Json, status: Json, *, ends: bool) -> Finding | None:
    """Return what stops the container of `spec` in `pod`. `ends`: it is one that has to end (an init container)."""
    waiting = waiting_of(status)
    reason, message = waiting.get("reason", ""), one_line(waiting.get("message", ""))
    if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"):
        return _image(seen, pod, spec, waiting)
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return (_config if reason == "CreateContainerConfigError" else _start)(pod, spec, message)
    if ends and status["state"].get("terminated", {}).get("exitCode") == 0:
        return None
    if crashes_of(status) and (not status.get("ready") or _out_of_memory(status)):
        return ended(seen, pod, spec, status)
    if "running" in status["state"] and not status.get("ready"):
        return _running_on(seen, pod, spec, status) if ends else _unready(seen, pod, spec, status)
    return None


# --- images ---

FOREIGN_PROGRAM = "its image is of another architecture than its node: build and push it for the nodes' platform"


_IMAGE_CAUSES: tuple[tuple[str, str, float | None, str], ...] = (
    (r"InvalidImageName", "`{image}` is not a valid image name: fix `images:` of the overlay", 0.0, "image"),
    (
        r"ErrImageNeverPull",
        "its node has no image {image} and may not pull it: load it, or fix imagePullPolicy",
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
        "the registry refuses image {image}: fix imagePullSecrets, or the name",
        IMAGE_SECONDS,
        "image",
    ),
    (
        r"not found|manifest unknown|name unknown|NotFound",
        "image {image} is not in its registry: push it, or fix the name",
        IMAGE_SECONDS,
        "image",
    ),
    (
        r"server gave HTTP response to HTTPS client|x509:",
        "its node does not trust the registry of {image} ({why}): make the node trust it, or fix the name",
        IMAGE_SECONDS,
        "image",
    ),
    (r"", "its node cannot reach the registry of {image} ({why}): Kubernetes keeps trying", None, "image"),
)


def _image(seen: Observation, pod: Json, spec: Json, waiting: Json) -> Finding:
    name, said = named(pod), f"{waiting['reason']} {one_line(waiting.get('message', ''))}"
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
    """Return the end of a chain of Go's errors, which is the cause."""
    chain = one_line(said).split('": ', 1)[-1].rstrip('" ')
    return ": ".join(chain.split(": ")[-2:])[:160]


# --- configuration ---


def _config(pod: Json, spec: Json, message: str) -> Finding:
    name = named(pod)
    if "failed to sync" in message:  # the kubelet's cache, not the object
        return Finding("config", f"pod {name}: {message}: Kubernetes keeps trying", pod=name, patience=None)
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
        return Finding("platform", f"pod {name}: {FOREIGN_PROGRAM}", pod=name, container=spec["name"])
    match = re.search(r'exec: "[^"]+": .*?(?=: unknown|$)', message)
    cause = match[0] if match else _reason_of(message)
    line = f"pod {name}: its container {spec['name']} cannot start: {cause}: fix its command or its image"
    return Finding("start", line, pod=name, container=spec["name"], patience=SYNC_SECONDS if not match else 0)


def mount(seen: Observation, pod: Json) -> Finding | None:
    """Return what keeps a volume of `pod`, or its network, away."""
    events = seen.events_of(pod, "FailedMount|FailedAttachVolume|FailedCreatePodSandBox")
    if not events:
        return None
    name, message = named(pod), one_line(events[-1].get("message", ""))
    if missing := re.search(r'(secret|configmap) "([^"]+)" not found', message):
        line = f"pod {name}: its volume needs the {_kind(missing[1])} {missing[2]}, which does not exist: create it"
        return Finding("config", line, pod=name, patience=SYNC_SECONDS)
    if missing := re.search(r"references non-existent (secret|config) key: (\S+)", message):
        line = f"pod {name}: its volume needs the key {missing[2]}, which its {missing[1]} lacks: add it"
        return Finding("config", line, pod=name, patience=SYNC_SECONDS)
    return Finding(
        "mount",
        f"pod {name}: {events[-1]['reason']}: {shorten(message)}: Kubernetes keeps trying",
        pod=name,
        patience=None,
    )


# --- containers that ended ---


def waiting_of(status: Json) -> Json:
    """Return what the container of `status` waits for; empty where it does not wait."""
    return status["state"].get("waiting") or {}


def _last_end(status: Json) -> Json:
    return status["state"].get("terminated") or status.get("lastState", {}).get("terminated") or {}


def end_time(status: Json) -> float:
    """Return when the container ended last, in seconds since the Unix epoch."""
    return epoch(_last_end(status).get("finishedAt"))


def container_id(pod: Json, spec: Json) -> ContainerId:
    """Return what identifies a container in the cluster."""
    return pod["metadata"]["uid"], spec["name"]


def crashes_of(status: Json) -> int:
    """Return how often the container has ended."""
    back_off = waiting_of(status).get("reason") == "CrashLoopBackOff"  # it ended, and is not counted as restarted yet
    return int(status.get("restartCount", 0)) + ("terminated" in status["state"] or back_off)


def _out_of_memory(status: Json) -> bool:
    return _last_end(status).get("reason") == "OOMKilled"


def ended(seen: Observation, pod: Json, spec: Json, status: Json) -> Finding | None:
    """Return how the last run of the container ended, and whether it may still recover by itself."""
    name, end = named(pod), _last_end(status)
    if not end:
        return None  # a restart is counted before the end is reported
    if _out_of_memory(status):
        limit = spec.get("resources", {}).get("limits", {}).get("memory")
        at = f"at its memory limit of {limit}" if limit else "because its node ran out of memory"
        line = f"pod {name}: its container {spec['name']} was killed {at}: raise resources.limits.memory, or use less"
        return Finding("oom", line, pod=name, container=spec["name"])
    code, running = end.get("exitCode"), "running" in status["state"]
    if end.get("reason") in ("StartError", "ContainerCannotRun"):
        return _start(pod, spec, one_line(end.get("message", "")))
    crashes = crashes_of(status)
    over = pod["status"].get("phase") == "Failed"  # of a Job: nobody starts it again
    for_good = over or code == BAD_USAGE or code in NO_PROGRAM or _crashed_enough(pod, end, crashes, running=running)
    patience = 0.0 if for_good else None
    killed = seen.events_of(pod, "Killing")
    if killed and (probe := re.search(r"failed (liveness|startup) probe", killed[-1].get("message", ""))):
        answer = _answer(_unhealthy(seen, pod, probe[1].capitalize())) or "failed"
        line = f"pod {name}: killed by its {probe[1]} probe{times(crashes)}: {answer}"
        return Finding("probe", line, name, spec["name"], patience, wants_log=True, previous=running)
    what = {137: "was killed (SIGKILL)", 139: "crashed (SIGSEGV)", 143: "was ended (SIGTERM)"}.get(
        code or 0, f"ended with exit code {code}"
    )
    line = f"pod {name}: its container {spec['name']} {what}{times(crashes)}"
    return Finding("crash", line, name, spec["name"], patience, wants_log=True, previous=running)


def _crashed_enough(pod: Json, end: Json, crashes: int, *, running: bool) -> bool:
    """Return whether the container has crashed often and long enough to be given up."""
    # By the kubelet's clock alone, which wrote both times.
    lasted = epoch(end.get("finishedAt")) - epoch(pod["status"].get("startTime"))
    return crashes >= CRASHES and not running and lasted >= CRASH_SECONDS


# --- probes ---


def _unhealthy(seen: Observation, pod: Json, probe: str) -> Json:
    events = [one for one in seen.events_of(pod, "Unhealthy") if one.get("message", "").startswith(probe)]
    return events[-1] if events else {}


def _running_on(seen: Observation, pod: Json, spec: Json, status: Json) -> Finding:
    """Return that an init container has not ended, which the containers after it wait for."""
    since = status["state"]["running"].get("startedAt")
    seconds = f" for {seen.now - epoch(since):.0f} s" if since else ""
    line = f"pod {named(pod)}: its init container {spec['name']} has been running{seconds}, and has to end first"
    return Finding("init", line, named(pod), spec["name"], patience=None, wants_log=True)


def _unready(seen: Observation, pod: Json, spec: Json, status: Json) -> Finding | None:
    name = named(pod)
    # Once it has started, what the startup probe was answered before is history.
    for probe in ("Readiness",) if status.get("started") else ("Startup", "Readiness"):
        event = _unhealthy(seen, pod, probe)
        answer = _answer(event)
        if not answer:
            continue
        asked = spec.get(f"{probe.lower()}Probe", {}).get("httpGet", {})
        path = f" GET {asked['path']}" if asked.get("path") else ""
        line = f"pod {name}: not ready: its {probe.lower()} probe{path}: {answer}{times(count_of(event))}"
        # A database that comes back makes it ready; a path that does not exist never will.
        if NOT_FOUND in answer.split():
            return Finding("probe", f"{line}: fix the probe's path", name, spec["name"], PATH_SECONDS)
        return Finding("probe", line, name, spec["name"], patience=None, wants_log=True)
    return None


def _answer(event: Json) -> str:
    """Return what a probe was answered, in words; empty where there is no `event`."""
    said = re.sub(r"^\w+ probe (failed|errored[^:]*): ?", "", event.get("message", "")).strip()
    if answered := re.search(r"statuscode: (\d+)", said):
        return f"answered {answered[1]}"
    if "connection refused" in said:
        port = re.search(r":(\d+): connect", said)
        return f"nothing listens on port {port[1]}" if port else "nothing listens"
    if "deadline exceeded" in said or "Client.Timeout" in said or "timed out" in said:
        return "no answer in time"
    status, _, body = said.partition(" ")
    return f"answered {status}: {failing_checks(body)}" if status.isdigit() and body else one_line(said)[:200]
