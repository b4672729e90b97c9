"""Setting up an emulator: asked for, whole or absent, from the machine's own Debian mirror."""

import os
import platform
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distill.deployment.targets import apt
from distill.deployment.targets.emulator import set_up
from distill.errors import UserError
from distill.files import cache_folder, whole_folder

# One package whose payload stands for all: what `dpkg-deb` unpacks is the file itself, a tar.
APT_GET = """#!/bin/sh
work=$(dirname "$APT_CONFIG")
cat "$APT_CONFIG" "$work/debian.sources" > "$LOG.settings"
echo "$@" >> "$LOG"
case "$*" in *install*) for name in qemu-user python3.13-minimal; do
    cp "$PAYLOAD" "$work/cache/archives/${name}_1%3a10.0_all.deb"; done;; esac
"""
APT_CONFIG = """#!/bin/sh
echo 'Acquire::http::Proxy "http://proxy:3128";'
echo 'Acquire::AllowInsecureRepositories "1";'
echo 'APT::Update::Post-Invoke:: "touch /hooked";'
"""
DPKG_DEB = """#!/bin/sh
case "$1" in --fsys-tarfile) cat "$2";; *) tar -xf "$2" -C "$3";; esac
"""
SOURCES = "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm\nComponents: main\n"


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """A Debian on x86-64 whose apt is made of scripts; returns the folder of its programs."""
    programs, etc, files = tmp_path / "bin", tmp_path / "etc", tmp_path / "files"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list.d" / "debian.sources").write_text(SOURCES)
    (files / "usr" / "bin").mkdir(parents=True)
    for name in ("qemu-aarch64", "qemu-x86_64", "python3.13"):
        (files / "usr" / "bin" / name).write_text(name)
    with tarfile.open(tmp_path / "payload.tar", "w") as archive:
        archive.add(files, ".")
    programs.mkdir()
    for name, script in (("apt-get", APT_GET), ("apt-config", APT_CONFIG), ("dpkg-deb", DPKG_DEB)):
        program(programs, name, script)
    monkeypatch.setattr(apt, "ETC", etc)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("LOG", str(tmp_path / "apt.log"))
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "payload.tar"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return programs


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def test_an_emulator_is_set_up_once_and_from_then_on_needs_nothing(debian, tmp_path):
    said = []
    made = set_up("aarch64", "cortex-a72", download=True, progress=said.append)
    assert [line.split()[1] for line in said] == ["qemu-trixie", "python-trixie-aarch64"]
    assert made.qemu == "1:10.0"
    qemu, *options, python = (word for word in made.command if not word.startswith("-"))
    assert Path(qemu).read_text() == "qemu-aarch64"
    assert options == ["cortex-a72", str(cache_folder("emulator") / "python-trixie-aarch64")]
    assert Path(python).read_text() == "python3.13"
    assert os.access(qemu, os.X_OK)
    assert (cache_folder("emulator") / "python-trixie-aarch64" / "lib").readlink() == Path(
        "usr/lib"
    )
    shutil.rmtree(debian)
    again = set_up("aarch64", "cortex-a76", download=False, progress=said.append)
    assert again.command[0] == qemu
    assert len(said) == 2


def test_nothing_is_fetched_unless_asked(debian, tmp_path):
    with pytest.raises(UserError, match=r"qemu-trixie is not there.*target\.download=true"):
        set_up("x86_64", "Haswell-noTSX", download=False)
    assert not (tmp_path / "apt.log").exists()
    assert not (tmp_path / "cache").exists()


def test_apt_keeps_to_its_folder_and_to_signed_archives(debian, tmp_path):
    set_up("x86_64", "Haswell-noTSX", download=True)
    settings = (tmp_path / "apt.log.settings").read_text()
    assert 'Acquire::http::Proxy "http://proxy:3128";' in settings
    assert "Post-Invoke" not in settings  # the machine's hooks may need root
    assert 'AllowInsecureRepositories "1"' not in settings
    assert 'Acquire::AllowInsecureRepositories "false";' in settings
    assert 'APT::Architecture "amd64";' in settings
    assert "URIs: http://mirror/debian\nSuites: trixie\n" in settings
    for name in ("Dir::State", "Dir::State::status", "Dir::Cache", "Dir::Etc::sourcelist"):
        assert f'{name} "{tmp_path / "cache"}' in settings
    # Nothing of apt's is left, such as a proxy's password.
    assert sorted(p.name for p in cache_folder("emulator").iterdir()) == [
        ".qemu-trixie.lock",
        "qemu-trixie",
    ]


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("W: Failed to fetch http://mirror Temporary failure resolving 'mirror'", "Is the network"),
        ("E: You don't have enough free space in /x/archives/.", "Free some space"),
        ("E: Write error - write (28: No space left on device)", "Free some space"),
        ("E: Failed to fetch http://mirror/q.deb  File has unexpected size (7 != 9)", "cut short"),
        ("E: Failed to fetch http://mirror/q.deb  Hash Sum mismatch", "cut short"),
        ("W: GPG error: http://mirror: NO_PUBKEY 6ED0E7B82643E131", "debian-archive-keyring"),
        ("E: The repository 'http://mirror' does not have a Release file.", "lacks this release"),
    ],
)
def test_what_apt_complains_of_is_one_message_and_nothing_is_left(debian, said, advice):
    program(debian, "apt-get", f'#!/bin/sh\necho "{said}" >&2\nexit 100\n')
    with pytest.raises(UserError, match=advice) as caught:
        set_up("x86_64", "Haswell-noTSX", download=True)
    assert said[3:] in str(caught.value)
    assert [path.name for path in cache_folder("emulator").iterdir()] == [".qemu-trixie.lock"]
    program(debian, "apt-get", APT_GET)
    assert set_up("x86_64", "Haswell-noTSX", download=True).qemu == "1:10.0"


def test_what_apt_complains_of_holds_no_passwords(debian):
    said = "E: Failed to fetch http://me:hunter2@mirror/q.deb  403  Forbidden"
    program(debian, "apt-get", f'#!/bin/sh\necho "{said}" >&2\nexit 100\n')
    with pytest.raises(UserError, match="http://<redacted>@mirror"):
        set_up("x86_64", "Haswell-noTSX", download=True)


def test_a_download_that_does_not_end_is_ended(debian, monkeypatch):
    program(debian, "apt-get", "#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(apt, "SECONDS", 0.2)
    with pytest.raises(UserError, match="did not end within"):
        set_up("x86_64", "Haswell-noTSX", download=True)


def test_a_package_that_cannot_be_unpacked_leaves_nothing(debian, tmp_path):
    (tmp_path / "payload.tar").write_bytes(b"half")
    with pytest.raises(UserError, match=r"Expected usr/bin/qemu-aarch64.*Try again"):
        set_up("x86_64", "Haswell-noTSX", download=True)
    assert not (cache_folder("emulator") / "qemu-trixie").exists()


def test_a_machine_without_apt_is_told_so(debian, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"Expected `apt-get`.*on Debian alone"):
        set_up("x86_64", "Haswell-noTSX", download=True)


def test_a_machine_with_other_archives_is_told_so(debian, tmp_path):
    source = tmp_path / "etc" / "sources.list.d" / "debian.sources"
    source.write_text(SOURCES.replace("bookworm", "noble"))
    with pytest.raises(UserError, match=r"Expected Debian's archive.*found 1 other"):
        set_up("x86_64", "Haswell-noTSX", download=True)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "x86_64"), ("Linux", "aarch64")])
def test_another_machine_cannot_emulate(debian, monkeypatch, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(UserError, match=f"this is {system} on {machine}"):
        set_up("aarch64", "cortex-a72", download=True)


def test_an_unknown_architecture_is_refused(debian):
    with pytest.raises(UserError, match="aarch64 or x86_64 but got 'riscv64'"):
        set_up("riscv64", "rv64", download=True)


def test_two_at_once_fetch_once(debian, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(set_up, "x86_64", "Haswell-noTSX", download=True),
            pool.submit(set_up, "x86_64", "Haswell-noTSX", download=True),
        ]
        first, second = (made.result() for made in work)
    assert first == second
    assert (tmp_path / "apt.log").read_text().count("qemu-user") == 1


def test_what_a_killed_process_left_half_done_is_replaced(tmp_path):
    target = tmp_path / "cache" / "whole"
    with pytest.raises(KeyboardInterrupt), whole_folder(target) as new:
        raise KeyboardInterrupt
    assert not target.exists()
    (target.parent / ".tmp-whole").mkdir()
    (target.parent / ".tmp-whole" / "old").touch()
    (target.parent / ".tmp-whole-apt").mkdir()
    with whole_folder(target) as new:
        (new / "file").touch()
    assert [path.name for path in target.iterdir()] == ["file"]
    assert sorted(path.name for path in target.parent.iterdir()) == [".whole.lock", "whole"]


def test_a_full_disk_is_one_message(tmp_path):
    def fill():
        with whole_folder(tmp_path / "whole"):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*Free some space, or see that"):
        fill()
    assert not (tmp_path / "whole").exists()


def archives(tmp_path: Path, one_line: str = "", **sources: str) -> list[apt.Archive]:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(one_line)
    for name, text in sources.items():
        (tmp_path / "sources.list.d" / f"{name}.sources").write_text(text)
    return apt.debian_archives(tmp_path)


def test_one_line_sources_give_mirror_and_key(tmp_path):
    found = archives(
        tmp_path,
        "# deb http://off/debian bookworm main\n"
        "deb-src http://source/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/d.gpg] http://one/debian bookworm main\n"
        "deb http://two/debian bookworm-updates main  # updates\n"
        "deb http://three/repo stable contrib\n",
    )
    assert found == [apt.Archive(uri="http://one/debian", signed_by="/usr/share/keyrings/d.gpg")]
    assert found[0].stanza("trixie") == (
        "Types: deb\nURIs: http://one/debian\nSuites: trixie\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/d.gpg\n"
    )


def test_deb822_sources_give_mirrors_and_an_embedded_key(tmp_path):
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    text = (
        "Types: deb deb-src\n# http://comment/debian\nURIs: mirror+file:///m.list http://b/debian\n"
        f"Suites: trixie trixie-updates\nComponents: main contrib\n{key}"
        "\nEnabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: trixie\nComponents: main\n"
    )
    found = archives(tmp_path, debian=text)
    assert [archive.uri for archive in found] == ["mirror+file:///m.list", "http://b/debian"]
    assert found[0].stanza("trixie").replace(": \n", ":\n").endswith(key)


def test_a_release_of_debians_own_goes_before_a_name_that_others_use(tmp_path):
    other = SOURCES.replace("bookworm", "stable").replace("mirror/debian", "other/chrome")
    assert [a.uri for a in archives(tmp_path, a=other, b=SOURCES)] == ["http://mirror/debian"]


def test_apt_itself_reads_the_settings(debian, require, tmp_path):
    """Against the real apt-config: the private file is what it says, not the machine's."""
    require("apt", "apt-config")
    set_up("x86_64", "Haswell-noTSX", download=True)
    settings = tmp_path / "settings"
    settings.write_text((tmp_path / "apt.log.settings").read_text().partition("Types:")[0])
    path = os.environ["PATH"].removeprefix(f"{debian}{os.pathsep}")
    done = subprocess.run(
        ["apt-config", "dump"],
        env={"PATH": path, "APT_CONFIG": str(settings)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'Acquire::AllowInsecureRepositories "false";' in done.stdout
    assert "Post-Invoke" not in done.stdout
