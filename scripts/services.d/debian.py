"""Debian packages, unpacked into the cache: needs no root, starts no service, changes nothing of the machine."""

import re
import shutil

from installing import Installation
from words import Failure

REMEDY = "check the machine's apt sources, or start the server yourself and give its address (see --help)"


def unpack(installation: Installation, package: str, family: str) -> None:
    """Unpacks `package`, what it needs and the machine lacks, and all it needs whose name begins with `family`."""
    for program in ("apt-get", "apt-cache", "dpkg"):
        installation.needs(program, "this is made for Debian: start the server yourself and give its address")
    try:
        names = _names(installation, package, family, [])
        options = []
    except Failure:
        # No package lists, or old ones: fetch some of our own, which needs no root.
        options = _own_lists(installation)
        names = _names(installation, package, family, options)
    debs = installation.directory / "debs"
    debs.mkdir()
    try:
        installation.run(["apt-get", *options, "download", *names], REMEDY, cwd=debs)
    except Failure:
        if options:
            raise
        options = _own_lists(installation)
        names = _names(installation, package, family, options)
        installation.run(["apt-get", *options, "download", *names], REMEDY, cwd=debs)
    for deb in sorted(debs.glob("*.deb")):
        installation.run(["dpkg", "-x", str(deb), str(installation.directory)], REMEDY)
    shutil.rmtree(debs)
    shutil.rmtree(installation.directory / "apt", ignore_errors=True)


def _names(installation: Installation, package: str, family: str, options: list) -> list:
    deep = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    listed = installation.run(["apt-cache", *options, "depends", "--recurse", *deep, package], REMEDY)
    names = {name for name in re.findall(r"^([a-z0-9][a-z0-9.+-]*)$", listed, re.M) if name.startswith(family)}
    simulated = installation.run(["apt-get", *options, "install", "-s", "--no-install-recommends", package], REMEDY)
    return sorted({package} | names | set(re.findall(r"^Inst (\S+)", simulated, re.M)))


def _own_lists(installation: Installation) -> list:
    home = installation.directory / "apt"
    (home / "lists/partial").mkdir(parents=True)
    (home / "cache/archives/partial").mkdir(parents=True)
    options = ["-o", f"Dir::State::Lists={home}/lists", "-o", f"Dir::Cache={home}/cache", "-o", "APT::Sandbox::User="]
    installation.run(["apt-get", *options, "update"], REMEDY)
    return options
