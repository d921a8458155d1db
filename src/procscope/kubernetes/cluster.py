"""The API server, as this package uses it: a client, and what may be asked of it.

Rights that `procscope webhook` needs, and no others. Of the cluster:

- `namespaces`: get, list, watch (not with `--no-cluster`);
- `mutatingwebhookconfigurations.admissionregistration.k8s.io`, limited to the name given by
  `--webhook-configuration`: get, patch (with `--certificates self`).

Of its own namespace, with `--certificates self`:

- `secrets`, limited to the name given by `--secret`: get, update, patch, create;
- `leases.coordination.k8s.io`, limited to the name given by `--lease`: get, update, patch, create.

`create` can be limited to a name, because both are created by server-side apply: its request names
the object, unlike a POST. It may be left out where both objects are there already, empty.
"""

from __future__ import annotations

import ssl
from typing import Final

from httpx2 import AsyncHTTPTransport, HTTPError, Timeout
from lightkube import ApiError, AsyncClient, ConfigError, KubeConfig
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import User
from yaml import YAMLError

from procscope.errors import ProcscopeError, one_line

FIELD_MANAGER: Final = "procscope-webhook"
_TIMEOUT_S: Final = 5.0

ClusterError = (HTTPError, ConfigError, ssl.SSLError, ValueError, LookupError)
"""What a request to the API server may raise: no answer, a refusal, or an answer that is none."""

NOT_FOUND: Final = 404
CONFLICT: Final = 409


def connect(kubeconfig: str | None, namespace: str | None) -> AsyncClient:
    """Return a client; nothing is sent yet.

    Without `kubeconfig` it is the pod's service account, or else what KUBECONFIG names.
    Raises ProcscopeError where there is neither, or where it cannot be read.
    """
    try:
        config = KubeConfig.from_file(kubeconfig) if kubeconfig else KubeConfig.from_env()
        chosen = config.get()
        if chosen is None:
            raise ConfigError("no current context")
        return AsyncClient(
            chosen,
            namespace=namespace,
            timeout=Timeout(_TIMEOUT_S),
            transport=AsyncHTTPTransport(verify=_tls(chosen)),
            field_manager=FIELD_MANAGER,
        )
    except (ConfigError, YAMLError, ValueError, LookupError, TypeError, OSError) as error:
        raise ProcscopeError(
            f"no access to a cluster: {explain(error)}",
            hint="run in a pod with a service account, give --kubeconfig, or --no-cluster",
        ) from None


def _tls(config: SingleConfig) -> ssl.SSLContext:
    """Verify as kubectl does. Raises OSError, SSLError or ConfigError.

    Python 3.13 also asks for extensions of certificates that RFC 5280 prescribes, and that the
    authorities of many clusters have left out (Missing Authority Key Identifier).
    """
    context = verify_cluster(config.cluster, config.user or User(), config.abs_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def status_of(error: BaseException) -> int:
    """Return the HTTP status that the API server refused with; 0 if it did not answer at all."""
    return int(error.status.code or 0) if isinstance(error, ApiError) else 0


def explain(error: BaseException) -> str:
    """Return an error in one line: what the API server said, or what kept it from answering."""
    return one_line(str(error) or type(error).__name__)
