"""`python -m pipeline rules`, a part of `nox -s lint`: each alert can fire, calls somebody, and says what to do."""

from __future__ import annotations

import logging
import os
from argparse import Namespace

from pipeline.commands import Verbs
from pipeline.config.project import Project
from pipeline.errors import SlipwayError
from pipeline.monitoring.collector import collector_problems
from pipeline.monitoring.dashboards import dashboard_files, dashboard_problems
from pipeline.monitoring.made import rule_files
from pipeline.monitoring.metrics import service_metrics
from pipeline.monitoring.problems import PROMTOOL, parse_problems, rule_problems
from pipeline.monitoring.receivers import route_problems
from pipeline.system.progress import Progress

__all__ = ["add_parsers"]

log = logging.getLogger(__name__)


def add_parsers(verbs: Verbs) -> None:
    verbs.add("rules", rules, "check the rules and dashboards of monitoring/").prog = "nox -s lint"


def rules(project: Project, _: Namespace, __: Progress) -> None:
    """Check what is in `monitoring/`, where there are any rules; say so where they cannot be parsed here."""
    files = rule_files(project.root)
    if not files:
        return
    parsed = parse_problems(project.root)
    unparsed = f"no expression in monitoring/ was parsed: there is no {PROMTOOL}; Debian has it in `prometheus`"
    if parsed is None and os.environ.get("CI") == "true":  # where nobody reads a warning
        raise SlipwayError(unparsed)
    if parsed is None:
        log.warning(unparsed)
    known = service_metrics()
    problems = [*(parsed or ()), *rule_problems(project.root, known)]
    problems += [*collector_problems(project.root), *route_problems(project.root)]
    # A dashboard may ask for what a rule records, so those have to be read.
    problems = problems or dashboard_problems(project.root, known)
    if problems:
        raise SlipwayError(*problems)
    boards = len(dashboard_files(project.root))
    log.info(f"monitoring/: {len(files)} files with rules, {boards} dashboards, and nothing wrong with them")
