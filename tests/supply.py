"""Fails if an installed package has a known vulnerability; says how many packages it could look up.

    make vulnerabilities

pip-audit alone calls a package that it could not look up no failure, and with none looked up says that no
vulnerability was found. Arguments are handed on to it, such as --ignore-vuln ID.
"""

import json
import subprocess
import sys

UNREACHABLE = ("ConnectionError", "Timeout", "ServiceError")


def main(arguments: list[str]) -> int:
    """Returns 1 for a vulnerability that is known, or if pip-audit fails; else 0."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", *arguments]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8")
    try:
        packages = json.loads(ended.stdout)["dependencies"]
    except ValueError:
        last = (ended.stderr.strip().splitlines() or ["it says nothing"])[-1]
        if any(word in ended.stderr for word in UNREACHABLE):
            print(f"NOT CHECKED: the list of known vulnerabilities cannot be reached here ({last[:120]})")
            return 0
        print(f"pip-audit failed: {last}", file=sys.stderr)
        return 1
    checked = [package for package in packages if "vulns" in package]
    for package in checked:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
    prefix = "" if checked else "NOT CHECKED: "
    print(
        f"{prefix}{len(checked)} of {len(packages)} packages looked up in the list of known vulnerabilities"
    )
    return int(any(package["vulns"] for package in checked))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
