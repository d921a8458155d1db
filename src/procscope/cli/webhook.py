"""`procscope webhook`: has Kubernetes mount the files into pods by itself."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

from procscope.errors import ProcscopeError
from procscope.inject.docker import MOUNTABLE, mountable
from procscope.kubernetes.settings import INJECT, POD_SECURITY_LEVELS, Settings
from procscope.linux.address import Address
from procscope.tree.sources import Pinned

_DEFAULT = Settings()
DESCRIPTION = f"""\
Answers the API server's admission requests: gives pods that ask for it, by the annotation
{INJECT}: "true", the volumes and mounts of their files. Runs in a pod, as the chart
installs it, with replicas beside it. Makes and renews its certificates itself, unless it is given
some. SIGTERM ends it without a failed request.

  procscope webhook
  procscope webhook --certificates files --tls-cert tls.crt --tls-key tls.key --no-cluster
"""
_CERTIFICATES = ("self", "files")
_TLS_FOLDER = "/etc/procscope/tls"
_EXTRA = frozenset(
    ("cryptography", "httptools", "httpx2", "lightkube", "prometheus_client", "uvicorn", "yaml")
)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHORTEST_S = 30
_LONGEST_S = 100 * 365 * 86400
_MAX_DRAIN_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `webhook`."""
    _add_settings(parser)
    _add_serving(parser)
    _add_certificates(parser)
    _add_cluster(parser)
    parser.add_argument("--debug", action="store_true", help="log what becomes of each request")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which pods are given what")
    group.add_argument(
        "--annotation",
        action="append",
        metavar="NAME",
        help=f"another name for {INJECT}; may be repeated (default "
        f"{', '.join(_DEFAULT.annotations)})",
    )
    group.add_argument(
        "--require-annotation",
        choices=("true", "false"),
        default="true",
        help="false: all pods that have not opted out (default %(default)s)",
    )
    group.add_argument(
        "--files",
        metavar="LIST",
        help="for pods that do not choose, separated by commas (default "
        f"{','.join(_DEFAULT.files)})",
    )
    group.add_argument(
        "--pinned",
        choices=[which.value for which in Pinned],
        default=_DEFAULT.pinned.value,
        help="which of the files come from the pinned tree, for pods that do not choose "
        "(default %(default)s)",
    )
    group.add_argument(
        "--mountpoint",
        metavar="DIR",
        default=_DEFAULT.mountpoint,
        help="where the agent serves on each node (default %(default)s)",
    )
    group.add_argument(
        "--exclude-namespace",
        action="append",
        metavar="NAME",
        help="never give anything to pods there; may be repeated (default "
        f"{', '.join(sorted(_DEFAULT.excluded_namespaces))})",
    )
    group.add_argument(
        "--sandboxed-runtime-class",
        action="append",
        metavar="PATTERN",
        help="runtime classes with a kernel of their own; may be repeated (default "
        f"{', '.join(_DEFAULT.sandboxed_runtime_classes)})",
    )
    group.add_argument(
        "--default-pod-security-level",
        choices=POD_SECURITY_LEVELS,
        default=_DEFAULT.default_pod_security_level,
        help="what the API server enforces in namespaces without a label (default %(default)s)",
    )
    group.add_argument(
        "--pod-security-exempt",
        action="append",
        metavar="PATTERN",
        help="namespaces that the API server exempts from Pod Security; may be repeated",
    )
    group.add_argument(
        "--allow-user-namespaces",
        action="store_true",
        help="also pods with hostUsers: false; all nodes need Linux 6.12 or newer",
    )


def _add_serving(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it is reached")
    group.add_argument(
        "--listen",
        metavar="[ADDRESS]:PORT",
        default=":8443",
        help="HTTPS: /mutate, and what the other one has (default %(default)s)",
    )
    group.add_argument(
        "--health-listen",
        metavar="[ADDRESS]:PORT",
        default=":8080",
        help="HTTP: /healthz, /readyz and /metrics (default %(default)s)",
    )
    group.add_argument(
        "--drain",
        type=float,
        metavar="SECONDS",
        default=5.0,
        help="how long requests are still answered after SIGTERM (default %(default)g)",
    )


def _add_certificates(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("certificates")
    group.add_argument(
        "--certificates",
        choices=_CERTIFICATES,
        default=_CERTIFICATES[0],
        help="self: made and renewed here; files: given, and read again when they change "
        "(default %(default)s)",
    )
    group.add_argument(
        "--tls-cert",
        metavar="FILE",
        default=f"{_TLS_FOLDER}/tls.crt",
        help="files: the certificate, with those between it and its authority (default "
        "%(default)s)",
    )
    group.add_argument(
        "--tls-key",
        metavar="FILE",
        default=f"{_TLS_FOLDER}/tls.key",
        help="files: its private key (default %(default)s)",
    )
    group.add_argument(
        "--service",
        metavar="NAME",
        default="procscope-webhook",
        help="self: the Service that leads here (default %(default)s)",
    )
    group.add_argument(
        "--secret",
        metavar="NAME",
        default="procscope-webhook-tls",
        help="self: the Secret that holds authority and certificate (default %(default)s)",
    )
    group.add_argument(
        "--lease",
        metavar="NAME",
        default="procscope-webhook",
        help="self: the Lease by which one replica leads (default %(default)s)",
    )
    group.add_argument(
        "--webhook-configuration",
        metavar="NAME",
        default="procscope",
        help="self: the MutatingWebhookConfiguration whose caBundle is kept current (default "
        "%(default)s)",
    )
    group.add_argument(
        "--ca-lifetime",
        metavar="DURATION",
        default="3650d",
        help="self: of an authority; renewed after two thirds of it (default %(default)s)",
    )
    group.add_argument(
        "--certificate-lifetime",
        metavar="DURATION",
        default="90d",
        help="self: of a certificate; renewed after two thirds of it (default %(default)s)",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the API server")
    group.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="unless given, the pod's service account, or else what KUBECONFIG names",
    )
    group.add_argument(
        "--namespace",
        metavar="NAME",
        help="where Service, Secret and Lease are; its own unless given",
    )
    group.add_argument(
        "--no-cluster",
        action="store_true",
        help="do not ask any API server; pods in namespaces that may enforce Pod Security are "
        "left alone then",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to end."""
    settings = _settings(args)
    own_certificates = args.certificates == "self"
    if own_certificates and args.no_cluster:
        raise ProcscopeError(
            "--no-cluster leaves no place to keep certificates in",
            hint="give some: --certificates files --tls-cert FILE --tls-key FILE",
        )
    if not 0 <= args.drain <= _MAX_DRAIN_S:
        raise ProcscopeError(
            f"--drain {args.drain:g} is out of range", hint=f"give 0 to {_MAX_DRAIN_S:g} seconds"
        )
    authority_lifetime = _lifetime("--ca-lifetime", args.ca_lifetime)
    certificate_lifetime = _lifetime("--certificate-lifetime", args.certificate_lifetime)
    listen, health_listen = Address.parse(args.listen), Address.parse(args.health_listen)
    try:
        from procscope.kubernetes import assembly
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise ProcscopeError(
            f"webhook needs the Python package {error.name}",
            hint="pip install 'procscope[kubernetes]'",
        ) from None
    _configure_logging(debug=args.debug)
    return assembly.run(
        assembly.Options(
            settings=settings,
            certificates=assembly.OwnCertificates(
                service=args.service,
                secret=args.secret,
                lease=args.lease,
                webhook_configuration=args.webhook_configuration,
                authority_lifetime=authority_lifetime,
                certificate_lifetime=certificate_lifetime,
            )
            if own_certificates
            else assembly.CertificatePaths(args.tls_cert, args.tls_key),
            listen=listen,
            health_listen=health_listen,
            drain_s=args.drain,
            cluster=not args.no_cluster,
            kubeconfig=args.kubeconfig,
            namespace=args.namespace,
        )
    )


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        mountpoint=args.mountpoint,
        files=_files(args.files),
        pinned=Pinned(args.pinned),
        annotations=tuple(args.annotation or _DEFAULT.annotations),
        require_annotation=args.require_annotation == "true",
        excluded_namespaces=frozenset(args.exclude_namespace or _DEFAULT.excluded_namespaces),
        sandboxed_runtime_classes=tuple(
            args.sandboxed_runtime_class or _DEFAULT.sandboxed_runtime_classes
        ),
        default_pod_security_level=args.default_pod_security_level,
        pod_security_exempt=tuple(args.pod_security_exempt or _DEFAULT.pod_security_exempt),
        allow_user_namespaces=args.allow_user_namespaces,
    )


def _files(text: str | None) -> tuple[str, ...]:
    """Return the files that a list names. Raises ProcscopeError."""
    if text is None:
        return _DEFAULT.files
    chosen: dict[str, None] = {}
    for word in text.split(","):
        name = mountable(word.strip())
        if name is None:
            raise ProcscopeError(
                f"pods cannot be given {word.strip()!r}",
                hint="choose from " + ", ".join(MOUNTABLE),
            )
        chosen[name] = None
    return tuple(chosen)


def _configure_logging(*, debug: bool) -> None:
    import logging

    from procscope.daemon import logs

    logs.configure(debug=debug)
    # They tell of each request, and of themselves.
    for name in ("asyncio", "httpcore2", "httpx2", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _lifetime(option: str, text: str) -> timedelta:
    """Return the time that a number and a unit tell. Raises ProcscopeError."""
    match = re.fullmatch(r"([0-9]{1,10})([smhd])", text)
    if match is None:
        raise ProcscopeError(
            f"{option} {text} is no duration", hint="write it as 90d, 12h, 30m or 60s"
        )
    seconds = int(match[1]) * _UNITS_S[match[2]]
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise ProcscopeError(
            f"{option} {text} is out of range",
            hint=f"give {_SHORTEST_S}s to {_LONGEST_S // 86400}d",
        )
    return timedelta(seconds=seconds)
