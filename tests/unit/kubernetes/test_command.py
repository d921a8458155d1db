"""Proves: the options of `procscope webhook` arrive where they count, and wrong ones are named."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest

from procscope.__main__ import main
from procscope.cli import webhook
from procscope.kubernetes import assembly
from procscope.kubernetes.assembly import CertificatePaths, Options, OwnCertificates
from procscope.kubernetes.settings import Settings
from procscope.linux.address import Address
from procscope.tree.sources import Pinned


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """What the webhook would have been run with."""
    options: list[Options] = []

    def run(given: Options) -> int:
        options.append(given)
        return 0

    monkeypatch.setattr(assembly, "run", run)
    # It would take the place of the log that pytest looks at.
    monkeypatch.setattr(webhook, "_configure_logging", lambda *, debug: None)
    return options


def words(text: str) -> list[str]:
    """The arguments of a command line without quotes."""
    return text.split()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says when it refuses, in one line."""
    assert main(["webhook", *arguments]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_without_an_option_everything_is_as_the_settings_and_the_chart_have_it(
    ran: list[Options],
) -> None:
    assert main(["webhook"]) == 0
    assert ran == [
        Options(
            settings=Settings(),
            certificates=OwnCertificates(
                service="procscope-webhook",
                secret="procscope-webhook-tls",
                lease="procscope-webhook",
                webhook_configuration="procscope",
                authority_lifetime=timedelta(days=3650),
                certificate_lifetime=timedelta(days=90),
            ),
            listen=Address("", 8443),
            health_listen=Address("", 8080),
            drain_s=5.0,
            cluster=True,
            kubeconfig=None,
            namespace=None,
        )
    ]


def test_options_become_settings(ran: list[Options]) -> None:
    arguments = (
        "webhook --annotation a.example/x --annotation b.example/y --require-annotation=false "
        "--files meminfo,/proc/cpuinfo/,sys/devices/system/cpu --mountpoint /mnt "
        "--exclude-namespace kube-system --exclude-namespace procscope "
        "--sandboxed-runtime-class vm* --default-pod-security-level baseline "
        "--pod-security-exempt * --allow-user-namespaces --pinned none"
    )
    assert main(words(arguments)) == 0
    assert ran[0].settings == Settings(
        mountpoint="/mnt",
        files=("proc/meminfo", "proc/cpuinfo", "sys/devices/system/cpu"),
        pinned=Pinned.NONE,
        annotations=("a.example/x", "b.example/y"),
        require_annotation=False,
        excluded_namespaces=frozenset(("kube-system", "procscope")),
        sandboxed_runtime_classes=("vm*",),
        default_pod_security_level="baseline",
        pod_security_exempt=("*",),
        allow_user_namespaces=True,
    )


def test_the_options_of_the_walk_through_are_understood(ran: list[Options]) -> None:
    # With one dash, as Go programs have it, they were -annotation=… and -require-annotation=….
    arguments = ["--annotation=initializer.kubernetes.io/lxcfs", "--require-annotation=true"]
    assert main(["webhook", *arguments]) == 0
    assert ran[0].settings == Settings()


def test_given_certificates_need_no_cluster(ran: list[Options]) -> None:
    arguments = "webhook --certificates files --tls-cert a --tls-key b --no-cluster"
    assert main(words(arguments)) == 0
    assert ran[0].certificates == CertificatePaths("a", "b")
    assert not ran[0].cluster


@pytest.mark.parametrize(
    ("text", "lifetime"),
    [
        ("30s", timedelta(seconds=30)),
        ("2m", timedelta(minutes=2)),
        ("12h", timedelta(hours=12)),
        ("90d", timedelta(days=90)),
    ],
)
def test_a_lifetime_is_a_number_and_a_unit(
    ran: list[Options], text: str, lifetime: timedelta
) -> None:
    assert main(["webhook", "--ca-lifetime", text, "--certificate-lifetime", text]) == 0
    chosen = ran[0].certificates
    assert isinstance(chosen, OwnCertificates)
    assert (chosen.authority_lifetime, chosen.certificate_lifetime) == (lifetime, lifetime)


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5h", "1w", "٣d", "29s", "36501d"])
def test_what_is_no_lifetime_is_named(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert f"--ca-lifetime {text} " in refusal(capsys, f"--ca-lifetime={text}")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--no-cluster", "--certificates files"),
        ("--drain -1", "--drain -1 is out of range"),
        ("--drain nan", "--drain nan is out of range"),
        ("--files vmstat", "cannot be given 'vmstat'"),
        ("--files=", "cannot be given ''"),
        ("--annotation not/a/name", "'not/a/name' cannot be the name of an annotation"),
        ("--mountpoint relative", "'relative'"),
    ],
)
def test_what_cannot_be_is_named(
    capsys: pytest.CaptureFixture[str], arguments: str, reason: str
) -> None:
    assert reason in refusal(capsys, *arguments.split())


def test_without_the_extra_one_line_says_how_to_install_it() -> None:
    program = (
        "import sys; sys.modules['lightkube'] = None; "
        "from procscope.__main__ import main; sys.exit(main(['webhook']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "procscope: webhook needs the Python package lightkube: "
        "pip install 'procscope[kubernetes]'\n"
    )


def test_help_needs_no_extra() -> None:
    program = (
        "import sys; from procscope.__main__ import main\n"
        "try: main(['webhook', '--help'])\n"
        "finally: print([m for m in ('asyncio', 'lightkube', 'uvicorn') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.endswith("[]\n")
