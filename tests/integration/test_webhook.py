"""Proves: the webhook as a process answers over TLS, changes certificates, ends without a failure.

It is given certificates, and asks no API server. Its clients trust one authority, as an API server
does.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from procscope.kubernetes.certificates import KeyPair, issue, make_authority
from tests.integration.daemons import COMMAND, ENVIRONMENT
from tests.integration.waiting import BOUND_S, eventually

HOST = "127.0.0.1"
NAME = "procscope-webhook.procscope.svc"
# An interpreter that imports a server of HTTP and a client of Kubernetes.
START_BOUND_S = 4 * BOUND_S
LISTENING = re.compile(rb"listening on [0-9.]+:([0-9]+)\n")
REVIEW = json.dumps(
    {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "web",
            "namespace": "shop",
            "operation": "CREATE",
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "web", "annotations": {"procscope.io/inject": "true"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    }
).encode()


class Authority:
    """An authority, and a certificate for the webhook."""

    def __init__(self) -> None:
        now, day = datetime.now(UTC), timedelta(days=1)
        authority = make_authority(now, day)
        self.certificate = authority.certificate
        self.pair = issue(authority, [NAME], now, day)
        self.client_context = ssl.create_default_context(cadata=self.certificate.decode())


class Connection(http.client.HTTPSConnection):
    """A connection to the webhook, by the name of its Service."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(HOST, port, timeout=BOUND_S, context=context)
        self._trusting = context

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._trusting.wrap_socket(plain, server_hostname=NAME)

    def mutate(self) -> dict[str, Any]:
        """Send the review; return the response of a 200."""
        self.request("POST", "/mutate", REVIEW, {"Content-Type": "application/json"})
        answer = self.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        response: dict[str, Any] = json.loads(body)["response"]
        return response


class Webhook:
    """One running process."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.authority = Authority()
        self.give(self.authority.pair)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *COMMAND,
                    "webhook",
                    *("--listen", f"{HOST}:0", "--health-listen", f"{HOST}:0"),
                    *("--certificates", "files", "--no-cluster"),
                    *("--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")),
                    # Nothing is known of any namespace here.
                    *("--pod-security-exempt", "*"),
                    *options,
                ],
                stderr=log,
                env=os.environ | ENVIRONMENT,
            )
        self.port, self.health_port = eventually(self._ports, START_BOUND_S) or (0, 0)
        eventually(lambda: self.health("/readyz") == 200)

    def _ports(self) -> tuple[int, int] | None:
        assert self.process.poll() is None, self.log()
        found = LISTENING.findall(self._log.read_bytes())
        return (int(found[0]), int(found[1])) if len(found) == 2 else None

    def log(self) -> str:
        return self._log.read_text()

    def give(self, pair: KeyPair) -> None:
        """Replace both files, one after the other."""
        for name, content in (("tls.crt", pair.certificate), ("tls.key", pair.key)):
            (self.folder / "new").write_bytes(content)
            (self.folder / "new").rename(self.folder / name)

    def connect(self, authority: Authority | None = None) -> Connection:
        return Connection(self.port, (authority or self.authority).client_context)

    def mutate(self, authority: Authority | None = None) -> dict[str, Any]:
        """Send the review over a connection of its own."""
        with closing(self.connect(authority)) as connection:
            return connection.mutate()

    def health(self, path: str) -> int:
        """The status of a plain request; 0 if nobody listens."""
        return self.read(path)[0]

    def read(self, path: str, method: str = "GET") -> tuple[int, str]:
        with closing(http.client.HTTPConnection(HOST, self.health_port, timeout=5)) as plain:
            try:
                plain.request(method, path)
                answer = plain.getresponse()
                return answer.status, answer.read().decode()
            except ConnectionError:
                return 0, ""

    def end(self) -> int:
        """Wait for the process; return its exit code."""
        return self.process.wait(BOUND_S * 4)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def running(*options: str) -> Iterator[Webhook]:
    """A webhook with options, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="procscope-webhook-") as folder:
        webhook: Webhook | None = None
        try:
            webhook = Webhook(Path(folder), *options)
            yield webhook
        finally:
            if webhook is not None:
                webhook.kill()


@pytest.fixture(scope="module")
def shared() -> Iterator[Webhook]:
    """One for the tests that leave it as it is."""
    with running() as webhook:
        yield webhook


def test_a_pod_is_given_its_files_over_tls(shared: Webhook) -> None:
    response = shared.mutate()
    assert response["uid"] == "0df28fbd-5f5f-11e8-bc74-36e6bb280816"
    assert response["allowed"] is True
    patch = json.loads(base64.b64decode(response["patch"]))
    assert "/var/lib/procscope/mount/proc/meminfo" in json.dumps(patch)


def test_a_client_of_another_authority_does_not_trust_it(shared: Webhook) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shared.mutate(Authority())


def test_many_requests_go_over_one_connection(shared: Webhook) -> None:
    with closing(shared.connect()) as connection:
        for _ in range(50):
            assert connection.mutate()["allowed"] is True


def test_a_burst_of_pods_is_admitted(shared: Webhook) -> None:
    with ThreadPoolExecutor(30) as pool:
        responses = list(pool.map(lambda _: shared.mutate(), range(300)))
    assert all("patch" in response for response in responses)


def test_protocols_older_than_tls_1_2_are_refused(shared: Webhook) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Without this OpenSSL does not even offer it.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Connection(shared.port, context).connect()


def test_plain_http_and_noise_on_the_tls_port_disturb_nobody(shared: Webhook) -> None:
    for noise in (b"GET /healthz HTTP/1.1\r\n\r\n", b"\x16\x03\x01", os.urandom(500), b""):
        with socket.create_connection((HOST, shared.port)) as plain:
            plain.sendall(noise)
    assert shared.mutate()["allowed"] is True


def test_noise_within_tls_is_a_refusal(shared: Webhook) -> None:
    with closing(shared.connect()) as connection:
        connection.connect()
        connection.sock.sendall(b"\x00\x01\x02 nothing\r\n\r\n")
        assert connection.sock.recv(100).startswith(b"HTTP/1.1 400 ")
    assert shared.mutate()["allowed"] is True


def test_probes_and_metrics_need_no_tls(shared: Webhook) -> None:
    shared.mutate()
    assert shared.read("/healthz") == (200, "ok\n")
    assert shared.read("/readyz") == (200, "ok\n")
    status, text = shared.read("/metrics")
    assert status == 200
    assert 'admissions_total{kind="Pod",outcome="injected",reason=""}' in text
    assert "process_resident_memory_bytes" in text
    assert shared.read("/mutate", "POST")[0] == 404


def test_a_new_certificate_is_served_while_requests_go_on() -> None:
    with running() as webhook:
        old, new = webhook.authority, Authority()
        failures: list[Exception] = []
        done = threading.Event()
        both = ssl.create_default_context(cadata=(old.certificate + new.certificate).decode())

        def request_on() -> None:
            while not done.is_set():
                try:
                    with closing(Connection(webhook.port, both)) as connection:
                        connection.mutate()
                except (OSError, AssertionError) as error:
                    failures.append(error)

        asking = threading.Thread(target=request_on)
        with closing(webhook.connect()) as held:
            held.mutate()
            asking.start()
            try:
                webhook.give(new.pair)
                eventually(lambda: _is_trusted(webhook, new))
            finally:
                done.set()
                asking.join()
            # What was connected before stays connected.
            assert held.mutate()["allowed"] is True
        assert failures == []
        assert not _is_trusted(webhook, old)
        assert "certificate_reloads_total 2.0" in webhook.read("/metrics")[1]


def _is_trusted(webhook: Webhook, authority: Authority) -> bool:
    try:
        return bool(webhook.mutate(authority)["allowed"])
    except ssl.SSLCertVerificationError:
        return False


def test_files_that_cannot_be_used_leave_the_old_certificate() -> None:
    with running() as webhook:
        webhook.give(KeyPair(Authority().pair.certificate, b"nothing"))
        eventually(lambda: "cannot be used" in webhook.log())
        assert webhook.mutate()["allowed"] is True
        assert webhook.health("/readyz") == 200


def test_after_sigterm_requests_are_answered_until_it_ends_and_none_fails() -> None:
    with running("--drain", "0.5") as webhook:
        answers: list[int] = []
        refused = threading.Event()

        def request_on() -> None:
            try:
                while True:
                    webhook.mutate()
                    answers.append(webhook.health("/readyz"))
            except (ConnectionRefusedError, ConnectionResetError):
                # Reset is what a connection gets that nobody had accepted when the listener closed.
                refused.set()

        asking = threading.Thread(target=request_on)
        asking.start()
        eventually(lambda: answers)
        webhook.process.send_signal(signal.SIGTERM)
        eventually(lambda: 503 in answers)
        seen = len(answers)
        assert webhook.end() == 0
        asking.join()
        assert refused.is_set()
        assert len(answers) > seen
        assert "Traceback" not in webhook.log()


def test_a_request_that_has_begun_is_answered_though_the_drain_is_over() -> None:
    with running("--drain", "0") as webhook, closing(webhook.connect()) as connection:
        connection.putrequest("POST", "/mutate")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(REVIEW)))
        connection.endheaders(REVIEW[:100])
        webhook.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refuses(webhook.port))
        connection.send(REVIEW[100:])
        answer = connection.getresponse()
        assert json.loads(answer.read())["response"]["allowed"] is True
        assert webhook.end() == 0


def _refuses(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port)):
            return False
    except ConnectionRefusedError:
        return True


def test_on_the_way_out_a_connection_is_not_kept() -> None:
    with running("--drain", "600") as webhook, closing(webhook.connect()) as connection:
        connection.mutate()
        webhook.process.send_signal(signal.SIGTERM)
        eventually(lambda: webhook.health("/readyz") == 503)
        connection.request("POST", "/mutate", REVIEW, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert json.loads(answer.read())["response"]["allowed"] is True
        assert answer.getheader("connection") == "close"
        connection.close()
        # A second signal is for those who do not want to wait.
        webhook.process.send_signal(signal.SIGINT)
        assert webhook.end() == 0


def ended(*options: str) -> tuple[int, str]:
    """Exit code and last line of a webhook that cannot run."""
    done = subprocess.run(
        [*COMMAND, "webhook", *options],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        | ENVIRONMENT
        | {"HOME": "/nonexistent"},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


def test_what_keeps_it_from_starting_is_said_in_one_line(shared: Webhook, tmp_path: Path) -> None:
    anywhere = ("--listen", f"{HOST}:0", "--health-listen", f"{HOST}:0")
    files = ("--certificates", "files", "--no-cluster")
    (tmp_path / "config").write_text("clusters: nothing\n")
    cases = {
        "cannot listen at 8443": ("--listen", "8443"),
        f"{HOST}:{shared.port}: Address already in use": ("--listen", f"{HOST}:{shared.port}"),
        "/nowhere/tls.crt: No such file": (*anywhere, *files, "--tls-cert", "/nowhere/tls.crt"),
        "no access to a cluster": anywhere,
        "/nowhere not found": (*anywhere, "--kubeconfig", "/nowhere"),
        "no access to a cluster: string indices": (
            *anywhere,
            *("--kubeconfig", str(tmp_path / "config")),
        ),
    }
    for reason, options in cases.items():
        code, line = ended(*options)
        assert code == 1
        assert line.startswith("procscope: ")
        assert reason in line.replace("'", "")
