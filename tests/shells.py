"""A shell on a terminal, as people use it: what stands on its line after some keys."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

_SHOWN = "\x18"  # Ctrl-X: writes the line to a file
_RC = """
PS1='> '
{before}
source <(distill --completion zsh)
shown() {{ print -r -- "$BUFFER|" > "$HOME/shown.new" && mv "$HOME/shown.new" "$HOME/shown" }}
zle -N shown
bindkey '^X' shown
bindkey '^I' complete-word
unsetopt menu_complete auto_menu
"""


def line_of_zsh(zsh: str, folder: Path, typed: str, before: str = "") -> tuple[str, str]:
    """Type something into zsh and press Tab.

    Returns:
        The line, a bar at its end, and all that the terminal has shown.
    """
    program = folder / "bin" / "distill"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m distill "$@"\n')
    program.chmod(0o755)
    (folder / ".zshrc").write_text(_RC.format(before=before))
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "ZDOTDIR": str(folder),
        "TERM": "dumb",
    }
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        [zsh, "-d", "-i"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    try:
        os.write(master, f"{typed}\t{_SHOWN}".encode())
        said = _until(folder / "shown", master)
        return (folder / "shown").read_text().rstrip("\n"), said
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def _until(file: Path, terminal: int) -> str:
    said, ends = b"", time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < ends, said.decode(errors="replace")
        if select.select([terminal], [], [], 0.05)[0]:
            said += os.read(terminal, 4096)
    return said.decode(errors="replace")
