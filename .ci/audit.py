"""`make audit`: known vulnerabilities and licences of everything Farebox is made of.

Advisories come from the services of pip-audit and cargo-audit. Where those cannot be reached, or cargo-audit
is not installed, this says so and goes on: the licences need no network. Exit status 1: an advisory or a
licence to look at.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ALLOWED = re.compile(
    r"apache|\bmit\b|bsd|\bisc\b|psf|python software foundation|mozilla|mpl-2|zlib|unlicense|unicode|cc0",
    re.IGNORECASE,
)
UNREACHABLE = re.compile(
    r"(connection|timed? ?out|resolve|unreachable|proxy|403|404|ServiceError|couldn't fetch|git operation)",
    re.IGNORECASE,
)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """A finished program with its output as text."""
    return subprocess.run(
        [str(part) for part in command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def advisories(name: str, result: subprocess.CompletedProcess[str]) -> bool:
    """Report one advisory check; False if it found something."""
    if result.returncode == 0:
        print(f"{name}: no known vulnerability")
        return True
    output = (result.stdout + result.stderr).strip()
    if UNREACHABLE.search(result.stderr) and "Found" not in output:
        reason = output.splitlines()[-1] if output else "no output"
        print(f"{name}: NOT CHECKED, the advisory service cannot be reached from here ({reason[:200]})")
        return True
    print(f"{name}:\n{output}")
    return False


def python_advisories() -> bool:
    """pip-audit over the locked run-time requirements."""
    lock = REPOSITORY / "requirements" / "run.txt"
    return advisories(
        "Python packages", run(BIN / "pip-audit", "--require-hashes", "--disable-pip", "-r", lock)
    )


def rust_advisories() -> bool:
    """cargo-audit over Cargo.lock, where it is installed."""
    if run("cargo", "audit", "--version").returncode != 0:
        print("Rust crates: NOT CHECKED, cargo-audit is not installed (cargo install cargo-audit --locked)")
        return True
    return advisories("Rust crates", run("cargo", "audit", "--quiet"))


def python_licences() -> list[tuple[str, str]]:
    """(package and version, licence) of the run-time packages installed here."""
    lock = (REPOSITORY / "requirements" / "run.txt").read_text()
    names = re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)
    listed = run(BIN / "pip-licenses", "--from=mixed", "--format=json", "--packages", *names)
    return [(f"{row['Name']} {row['Version']}", row["License"]) for row in json.loads(listed.stdout)]


def rust_licences() -> list[tuple[str, str]]:
    """(crate and version, licence) of everything Cargo.lock resolves to for the compiled module."""
    listed = run("cargo", "metadata", "--locked", "--format-version=1", "--features", "python")
    packages = json.loads(listed.stdout)["packages"]
    return [
        (f"{crate['name']} {crate['version']}", crate.get("license") or "none stated") for crate in packages
    ]


def main() -> int:
    """Run both parts, print what was found."""
    clean = [python_advisories(), rust_advisories()]
    rows = sorted(python_licences()) + sorted(rust_licences())
    print(f"\nLicences of {len(rows)} packages")
    for name, licence in rows:
        fine = ALLOWED.search(licence) is not None
        clean.append(fine)
        print(f"  {name:32} {licence[:80]}{'' if fine else '   <-- look at this one'}")
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
