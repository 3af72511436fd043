"""Each cause of an alert, caused for real: which fires after how many seconds, and is over after how many.

Those that take long begin at once; the tests are in an order in which none disturbs another.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from tests.containers import docker
from tests.deploy.breaking import fail_later
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.compose.watching import PYTHON, alerts, eventually, firing, have_or_skip, images, query, watched_clone
from tests.deploy.conftest import AddRow
from tests.deploy.visitors import Callers
from tests.project import PROJECT

pytestmark = [pytest.mark.e2e, pytest.mark.needs("openssl")]

TABLE = "Compose: causes, and the alerts that they fire"
BLACKBOX = "prom/blackbox-exporter:v0.26.0"
RATE = 10  # requests a second of users
FULL_MB = 330  # more than Redis takes, by as many keys as the rule waits for
KILLS, KILL_SECONDS = 4, 30  # so many, and what a process lives at least between two: it has to be scraped
LATER = 120  # seconds after a replica's first request: the proof is over by then
LOCKED_SECONDS = 45
FORGOTTEN_SECONDS = 1000  # what happened counts for a quarter of an hour
# Few connections, so that few callers exhaust them.
POOL = {"DATABASE_POOL_SIZE": "5", "DATABASE_MAX_OVERFLOW": "3", "DATABASE_POOL_TIMEOUT": "3.0"}
LOCK = f"BEGIN; LOCK TABLE testing_notes IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({LOCKED_SECONDS}); COMMIT"
# Compose ships no blackbox exporter, as `doctor` looks at the edge's own certificate: whoever has one scrapes it so.
SCRAPE = """
  - job_name: certificates
    metrics_path: /probe
    params: { module: [tls] }
    static_configs: [{ targets: ["certificate:8443"] }]
    relabel_configs:
      - { source_labels: [__address__], target_label: __param_target }
      - { source_labels: [__param_target], target_label: instance }
      - { target_label: __address__, replacement: "blackbox:9115" }
"""
MODULES = "modules: { tls: { prober: tcp, tcp: { tls: true, tls_config: { insecure_skip_verify: true } } } }\n"
SERVE_TLS = """
import socket, ssl
with socket.create_server(("", 8443)) as listener:
    while True:
        connection, _ = listener.accept()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("/certificate/both.pem")
        try:
            context.wrap_socket(connection, server_side=True).close()
        except OSError:
            connection.close()
"""


class Causes:
    """What was caused in the clone `one`, and is asked for by `callers`."""

    def __init__(self, one: ComposeCheckout, callers: Callers, folder: Path) -> None:
        self.one, self.callers, self.folder = one, callers, folder
        self.since = time.time()
        self._begun: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    def begin(self, *names: str) -> None:
        """Note that what is to fire the alerts `names` begins now; none of them fires yet."""
        assert not {*names} & firing(self.one)
        self._begun |= dict.fromkeys(names, time.time())

    def fires(self, name: str, within: float) -> None:
        """Wait until the alert fires, `within` seconds from now at most."""
        eventually(lambda: name in alerts(self.one, self._begun[name]), f"{name} does not fire", within)

    def end(self, *names: str) -> None:
        """Note that what fires the alerts `names` ends now."""
        self._ended |= dict.fromkeys(names, time.time())

    def is_over(self, name: str, within: float) -> str:
        """Wait until the alert is over, `within` seconds from now at most; return the row of the table."""
        expression = f'ALERTS{{alertstate="firing", alertname="{name}"}}'
        eventually(lambda: not query(self.one, expression), f"{name} is not over", within)
        times = alerts(self.one, self._begun[name])[name]
        fired, over = times[0] - self._begun[name], times[-1] + 1 - self._ended[name]
        return f"{name:18} fires {fired:4.0f} s after its cause, and is over {over:4.0f} s after the cause is gone"

    def others(self) -> set[str]:
        """Return the alerts that fired beside those that were caused."""
        return alerts(self.one, self.since).keys() - self._begun.keys()


@contextmanager
def beside(one: ComposeCheckout, name: str, *options: str, image: str, command: tuple[str, ...]) -> Iterator[str]:
    """Run a container beside what watches, until the block ends; yield its name."""
    container = f"{one.project}-{name}"
    network = ("--network", f"{one.project}_monitoring", "--network-alias", name)
    docker("run", "--detach", "--name", container, *network, *options, image, *command)
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def certify(folder: Path, days: int) -> None:
    """Write a certificate that ends in so many days, and its key."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=certificate"]
    subprocess.run([*command, "-days", str(days), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    written = folder / "new.pem"
    written.write_text(key.read_text() + certificate.read_text())
    written.rename(folder / "both.pem")


@contextmanager
def probed(one: ComposeCheckout, folder: Path) -> Iterator[None]:
    """Serve the certificate of `folder`, and let the blackbox exporter look at it."""
    modules = folder / "modules.yaml"
    modules.write_text(MODULES)
    server = beside(one, "certificate", "--volume", f"{folder}:/certificate:ro", image=PYTHON,
                    command=("python", "-c", SERVE_TLS))  # fmt: skip
    exporter = beside(one, "blackbox", "--volume", f"{modules}:/modules.yaml:ro", image=BLACKBOX,
                      command=("--config.file=/modules.yaml",))  # fmt: skip
    with server, exporter:
        yield


def in_volume(volume: str, command: str) -> None:
    """Run a command of the shell in the folder /small, which is the volume."""
    docker("run", "--rm", "--network", "none", "--volume", f"{volume}:/small", PYTHON, "sh", "-c", command)


@contextmanager
def small_disk(one: ComposeCheckout, folder: Path) -> Iterator[str]:
    """Let a second collector, with the first one's settings, look at a disk of 16 MB; yield the disk's volume."""
    config = yaml.safe_load((PROJECT.root / "monitoring/compose/collector.yaml").read_text(encoding="utf-8"))
    receiver = config["receivers"]["hostmetrics"]
    disk = receiver["scrapers"]["filesystem"]
    disk["include_mount_points"]["mount_points"] = ["/small"]
    receiver["scrapers"] = {"filesystem": disk}  # two collectors with the same series are refused
    pipeline = config["service"]["pipelines"]["metrics"]
    for kind in ("receivers", "processors", "exporters"):
        config[kind] = {name: config[kind][name] for name in pipeline[kind]}
    del config["extensions"], config["service"]["extensions"]
    config["service"]["pipelines"] = {"metrics": pipeline}
    file, volume = folder / "collector.yaml", f"{one.project}-small"
    file.write_text(yaml.safe_dump(config))
    docker("volume", "create", *(word for each in ("type=tmpfs", "device=tmpfs", "o=size=16m")
                                 for word in ("--opt", each)), volume)  # fmt: skip
    try:
        given = ("--user", "0:0", "--volume", f"{file}:/collector.yaml:ro", "--volume", f"{volume}:/small:ro")
        with beside(one, "second-collector", *given, image=images()["collector"],
                    command=("--config=/collector.yaml",)):  # fmt: skip
            yield volume
    finally:
        docker("volume", "rm", volume)


@pytest.fixture(scope="module", name="causes")
def _causes(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Causes]:
    """Yield a watched clone with users; a disk is full, a certificate is near its end, and Redis was filled."""
    have_or_skip(BLACKBOX, PYTHON)
    folder = tmp_path_factory.mktemp("causes")
    with ExitStack() as stack:
        one = stack.enter_context(watched_clone(template, folder, scrape_certificates, **POOL))
        (folder / "certificate").mkdir()
        certify(folder / "certificate", 60)
        stack.enter_context(probed(one, folder / "certificate"))
        volume = stack.enter_context(small_disk(one, folder))
        callers = stack.enter_context(Callers(f"http://localhost:{one.port}", one.asked, rate=RATE))
        seen = ('system_filesystem_usage_bytes{mountpoint="/small"}', "probe_ssl_earliest_cert_expiry",
                "redis_evicted_keys_total", "pg_up == 1", 'count(up{job="backend"} == 1) == 2')  # fmt: skip
        eventually(lambda: all(query(one, each) for each in seen), "not all of it is scraped", 180)
        eventually(lambda: not firing(one), "something fires already", 300)
        causes = Causes(one, callers, folder)
        causes.begin("DiskFilling", "CertificateEnds", "RedisEvicting")
        in_volume(volume, "head -c 15500000 /dev/zero >/small/filler")
        certify(folder / "certificate", 9)
        one.fill_redis(FULL_MB)
        causes.end("RedisEvicting")
        yield causes


def scrape_certificates(one: ComposeCheckout) -> None:
    """Let Prometheus ask the blackbox exporter."""
    one.append("monitoring/compose/prometheus.yaml", SCRAPE)


def test_redis_that_is_full(causes: Causes) -> None:
    """It evicts, and the service does not notice."""
    causes.fires("RedisEvicting", 120)
    assert causes.callers.failed == []


def test_a_replica_that_is_killed_again_and_again(causes: Causes) -> None:
    """The engine starts it each time; the edge has another one meanwhile."""
    name = causes.one.containers("backend")[0]
    causes.begin("ReplicaRestarting")
    for _ in range(KILLS):
        docker("exec", name, "sh", "-c", "kill -9 -1")
        causes.end("ReplicaRestarting")
        eventually(
            lambda: causes.one.inspect(name)["State"].get("Health", {}).get("Status") == "healthy", "not back", 60
        )
        time.sleep(KILL_SECONDS)
    causes.fires("ReplicaRestarting", 120)


def test_a_release_with_errors(causes: Causes, add_row: AddRow) -> None:
    """It was right in the proof; the release before brings quiet."""
    one, failed = causes.one, causes.callers.failed
    fail_later(one, LATER, each=20)
    one.proved()
    one.restore()
    before = len(failed)
    eventually(lambda: len(failed) > before, "no request fails", LATER + 60)
    causes.begin("ReleaseFailing")
    causes.fires("ReleaseFailing", 240)
    back = one.run("rollback")
    assert back.code == 0, str(back)
    causes.end("ReleaseFailing")
    add_row(TABLE, causes.is_over("ReleaseFailing", 300))


def test_an_exhausted_pool(causes: Causes) -> None:
    """Somebody locks a table, and more ask for it than there are connections."""
    causes.begin("PoolExhausted")
    locking = threading.Thread(target=causes.one.sql, args=(LOCK,))
    locking.start()
    with Callers(f"http://localhost:{causes.one.port}", causes.one.asked, rate=1, callers=60):
        locking.join()
    causes.end("PoolExhausted")
    causes.fires("PoolExhausted", 60)


def test_redis_that_is_stopped(causes: Causes, add_row: AddRow) -> None:
    """The service does without."""
    [redis] = causes.one.containers("redis")
    causes.begin("RedisAway")
    docker("stop", redis)
    causes.fires("RedisAway", 180)
    docker("start", redis)
    causes.end("RedisAway")
    add_row(TABLE, causes.is_over("RedisAway", 500))


def test_a_disk_that_is_full(causes: Causes, add_row: AddRow) -> None:
    """And has room again."""
    causes.fires("DiskFilling", 480)
    in_volume(f"{causes.one.project}-small", "rm /small/filler")
    causes.end("DiskFilling")
    add_row(TABLE, causes.is_over("DiskFilling", 180))


def test_postgresql_that_is_stopped(causes: Causes, add_row: AddRow) -> None:
    """Nobody is ready without it, so that pages, too."""
    add_row(TABLE, causes.is_over("PoolExhausted", 400))  # it would begin again
    [postgres] = causes.one.containers("postgres")
    both = ("PostgreSQLAway", "NothingServes")
    causes.begin(*both)
    docker("stop", postgres)
    for name in both:
        causes.fires(name, 180)
    docker("start", postgres)
    causes.end(*both)
    for name in both:
        add_row(TABLE, causes.is_over(name, 180))
    eventually(causes.one.serves, "it does not serve again", 60)


def test_a_certificate_that_ends_soon(causes: Causes, add_row: AddRow) -> None:
    """And is renewed."""
    causes.fires("CertificateEnds", 780)
    certify(causes.folder / "certificate", 60)
    causes.end("CertificateEnds")
    add_row(TABLE, causes.is_over("CertificateEnds", 180))


def test_what_is_forgotten_after_a_quarter_of_an_hour(causes: Causes, add_row: AddRow) -> None:
    """Evicted keys and restarts; beside what was caused, the budget alone was called out."""
    for name in ("RedisEvicting", "ReplicaRestarting"):
        add_row(TABLE, causes.is_over(name, FORGOTTEN_SECONDS))
    add_row(TABLE, f"beside them: {', '.join(sorted(causes.others())) or 'none'}")
    assert causes.others() <= {"ErrorBudgetBurning", "ErrorBudgetLeaking", "ConnectionsNearLimit"}
