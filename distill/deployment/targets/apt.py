"""Fetches Debian packages into a folder with apt, unprivileged, and changes nothing of the system.

The mirror, its key and the proxy are those that this machine's apt is configured with; everything
else that apt reads or writes lies in a folder of its own. Signatures are always checked. Knows
nothing of what the packages are for.
"""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import UserError
from distill.redaction import without_passwords

ETC = Path("/etc/apt")
SECONDS = 900.0

# Suites that only Debian's own archive has, and names that others use as well.
_SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid")
_ALIASES = ("oldstable", "stable", "testing", "unstable")

_ADVICE = {
    "No space left": "Free some space, or point XDG_CACHE_HOME to a larger disk.",
    "enough free space": "Free some space, or point XDG_CACHE_HOME to a larger disk.",
    "NO_PUBKEY": "Its key is not among this machine's: update the package debian-archive-keyring.",
    "not signed": "Unsigned archives are not used: choose a mirror of Debian's own.",
    "Release file": "The mirror lacks this release: name another in /etc/apt.",
    "404": "The mirror lacks this: name another in /etc/apt.",
    "Hash Sum mismatch": "The download was cut short or the mirror is changing: try again.",
    "unexpected size": "The download was cut short or the mirror is changing: try again.",
}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One of this machine's package archives.

    Attributes:
        uri: as apt takes it.
        signed_by: a keyring's path, or a key itself; None for the keys that apt trusts anyway.
    """

    uri: str
    signed_by: str | None

    def stanza(self, suite: str) -> str:
        """Write it down as a source of another of its suites."""
        text = f"Types: deb\nURIs: {self.uri}\nSuites: {suite}\nComponents: main\n"
        return text if self.signed_by is None else f"{text}Signed-By: {self.signed_by}\n"


def debian_archives(etc: Path) -> list[Archive]:
    """Find Debian's archive among the sources in apt's configuration folder.

    Raises:
        UserError: there is none.
    """
    folder = etc / "sources.list.d"
    found: list[tuple[list[str], Archive]] = []
    for path in [etc / "sources.list", *sorted(folder.glob("*.list"))]:
        if path.is_file():
            found += _one_line_sources(path.read_text(errors="replace"))
    for path in sorted(folder.glob("*.sources")):
        found += _deb822_sources(path.read_text(errors="replace"))
    for known in (_SUITES, _ALIASES):
        archives = [archive for suites, archive in found if set(suites) & set(known)]
        if archives:
            return list(dict.fromkeys(archives))
    raise UserError(
        f"Expected Debian's archive among apt's sources in {etc} but found "
        f"{len(found) or 'no'} others. An emulator is set up on Debian alone."
    )


def _one_line_sources(text: str) -> list[tuple[list[str], Archive]]:
    """Read `deb [options] uri suite components` lines."""
    found = []
    for line in text.splitlines():
        kind, _, rest = line.partition("#")[0].strip().partition(" ")
        options = ""
        if rest.lstrip().startswith("["):
            options, _, rest = rest.lstrip()[1:].partition("]")
        uri, *names = rest.split() or [""]
        if kind != "deb" or "main" not in names[1:]:
            continue
        signed = [o.partition("=")[2] for o in options.split() if o.startswith("signed-by=")]
        found.append((names[:1], Archive(uri=uri, signed_by=signed[0] if signed else None)))
    return found


def _deb822_sources(text: str) -> list[tuple[list[str], Archive]]:
    """Read paragraphs of `Field: value` lines; a value goes on in lines that are indented."""
    found = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for paragraph in "\n".join(line.rstrip() for line in lines).split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.strip("\n").split("\n"):
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line}"
            else:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        usable = (
            "deb" in fields.get("types", "").split()
            and "main" in fields.get("components", "").split()
            and fields.get("enabled", "yes").lower() not in ("no", "false")
        )
        for uri in fields.get("uris", "").split() if usable else ():
            archive = Archive(uri=uri, signed_by=fields.get("signed-by"))
            found.append((fields.get("suites", "").split(), archive))
    return found


def fetch_packages(
    packages: Sequence[str], *, architecture: str, suite: str, work: Path
) -> list[Path]:
    """Download packages of a suite, and what they depend on.

    Args:
        packages: names.
        architecture: Debian's name of it, such as arm64.
        suite: such as trixie.
        work: an empty folder for apt; the packages stay in it.

    Returns:
        The .deb files, their sizes and hashes checked by apt against the signed index.

    Raises:
        UserError: no apt, no Debian, no network, no space.
    """
    for program in ("apt-get", "apt-config", "dpkg-deb"):
        if shutil.which(program) is None:
            raise UserError(
                f"Expected `{program}` to set up an emulator but this machine has none. "
                "Emulators are set up on Debian alone."
            )
    sources = "\n".join(archive.stanza(suite) for archive in debian_archives(ETC))
    (work / "debian.sources").write_text(sources)
    (work / "status").touch()  # as if nothing were installed
    cache = work / "cache" / "archives"
    for folder in (work / "state" / "lists" / "partial", cache / "partial"):
        folder.mkdir(parents=True)
    settings = work / "apt.conf"
    settings.write_text(_settings(work, architecture))
    environment = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(settings)}
    said = []
    for arguments in (
        ("update",),  # warns of an archive that lacks the suite; what is missing shows below
        ("install", "--yes", "--download-only", "--no-install-recommends", *packages),
    ):
        code, errors = _run(["apt-get", "--quiet", *arguments], environment)
        said += [line[3:] for line in errors.splitlines() if line.startswith(("E: ", "W: "))]
    if code:
        reason = "; ".join(dict.fromkeys(said)) or f"exit code {code}"
        raise _failed(f"apt to fetch {', '.join(packages)} ({suite}, {architecture})", reason)
    return sorted(cache.glob("*.deb"))


def _settings(work: Path, architecture: str) -> str:
    """Write a whole configuration: the machine's proxies and timeouts, nothing else of its own."""
    # The machine's hooks and pins stay out: they are for its own packages, and may need root.
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    kept = [
        line
        for line in done.stdout.splitlines()
        if line.startswith("Acquire::")
        and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages", "Acquire::Allow"))
    ]
    ours = {
        "Dir::Etc::Parts": "/dev/null",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::sourcelist": work / "debian.sources",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",  # a user of apt's own could not write here
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowWeakRepositories": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
    }
    return "\n".join(kept + [f'{name} "{value}";' for name, value in ours.items()]) + "\n"


def unpack(packages: Iterable[Path], folder: Path) -> None:
    """Unpack whole packages into a folder.

    Raises:
        UserError: a package cannot be unpacked, or the disk is full.
    """
    for path in packages:
        code, errors = _run(["dpkg-deb", "--extract", str(path), str(folder)], os.environ)
        if code:
            raise _failed(f"to unpack {path.name}", " ".join(errors.split()) or f"exit code {code}")


def unpack_files(package: Path, names: Sequence[str], folder: Path) -> None:
    """Take a few executables out of a package that is large when unpacked.

    Args:
        package: the .deb file.
        names: inside it, such as `usr/bin/qemu-aarch64`.
        folder: where they go, without their folders.

    Raises:
        UserError: it lacks one of them, or cannot be read.
    """
    missing, reason = set(names), "it is not there"
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    content = archive.extractfile(member) if name in missing else None
                    if content is not None:
                        target = folder / Path(name).name
                        with target.open("wb") as file:
                            shutil.copyfileobj(content, file)
                        target.chmod(0o755)
                        missing.remove(name)
        except tarfile.TarError as error:
            reason = str(error)
    if missing:
        raise UserError(
            f"Expected {', '.join(sorted(missing))} in {package.name} but found: {reason}. "
            "Try again."
        )


def _run(command: Sequence[str], environment: os._Environ[str] | dict[str, str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, f"E: {command[0]} did not end within {SECONDS:.0f} s"
    return done.returncode, without_passwords(done.stderr)  # of a mirror, or a proxy


def _failed(expected: str, reason: str) -> UserError:
    advice = next((a for sign, a in _ADVICE.items() if sign in reason), None)
    advice = advice or "Is the network up, and the mirror in /etc/apt reachable? Then try again."
    return UserError(f"Expected {expected} but found: {reason[:600]}. {advice}")
