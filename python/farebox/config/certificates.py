"""The certificate authorities that endpoints name: looked at when Farebox starts, where faults are told."""

import ssl
from pathlib import Path

from farebox.config.problems import ConfigError, Problem
from farebox.config.settings import Settings


def check_certificates(settings: Settings) -> None:
    """Raises ConfigError naming every `ca_file` that cannot be used."""
    faulty = [
        Problem(service.file, f"endpoint {endpoint.name}", f"ca_file {endpoint.ca_file} {reason}")
        for service in settings.services
        for endpoint in service.endpoints.values()
        if endpoint.ca_file is not None and (reason := _fault(endpoint.ca_file))
    ]
    if faulty:
        raise ConfigError(faulty)


def _fault(path: Path) -> str:
    """Why a file is of no use; empty where it is."""
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        return "holds no certificate in PEM form; put the certificate authority's there"
    except OSError as error:
        return f"cannot be read: {error.strerror}; put the certificate authority's file there"
    return ""
