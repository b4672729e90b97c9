"""What the shell may complete: verbs, actions, groups with their options, and dotted keys.

Reads the YAML files alone. A shell asks by `distill --complete LINE`, as the script that
`distill --completion bash|zsh|fish` prints tells it to.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from distill.errors import UsageError, nearest
from distill.verbs.console.options import groups_of, keys_of

# bash breaks words at "=", and completes what is behind the last break.
_BASH = """_distill() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##* }"
    local IFS=$'\\n'
    COMPREPLY=($(distill --complete "$line" 2>/dev/null))
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
    case "${COMPREPLY[0]}" in *[=.]) compopt -o nospace ;; esac
}
complete -o default -F _distill distill
"""
# zsh's own: it keeps "=" in the word, and its bashcompinit knows no `compopt`. What a shell without
# completion lacks is `compdef`.
_ZSH = """(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }
_distill() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a found=(${(f)"$(distill --complete "$line" 2>/dev/null)"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*[=.]}
        compadd -- ${found:#*[=.]}
    else
        compset -P '*='
        _files
    fi
}
compdef _distill distill
"""
_SCRIPTS = {
    "bash": _BASH,
    "zsh": _ZSH,
    "fish": "complete -c distill -a '(distill --complete (commandline -cp) 2>/dev/null)'\n",
}


def script_of(shell: str) -> str:
    """Give what a shell evaluates.

    Raises:
        UsageError: another shell.
    """
    if shell not in _SCRIPTS:
        raise UsageError(f"Unknown shell `{shell}`. {nearest(shell, _SCRIPTS)}")
    return _SCRIPTS[shell]


def candidates(
    line: str, conf: Path, verbs: Sequence[str], actions: Mapping[str, Sequence[str]]
) -> list[str]:
    """List what the last word of a line may become; nothing where it is a file's name or free.

    Args:
        line: up to the cursor, beginning with the program.
        conf: the folder of the configuration.
        verbs: that there are.
        actions: of those that have some.
    """
    _, *words = line.split(" ")
    if len(words) <= 1:
        word = words[0] if words else ""
        return [verb for verb in verbs if verb.startswith(word)]
    verb, word = words[0], words[-1]
    if verb not in verbs:
        return []
    groups = groups_of(conf, verb)
    if "=" in word:
        group, _, begun = word.partition("=")
        return [f"{group}={one}" for one in groups.get(group, ()) if one.startswith(begun)]
    known = [
        *([] if {*words[1:-1]} & {*actions.get(verb, ())} else actions.get(verb, ())),
        *(f"{group}=" for group in groups),
        *_level(keys_of(conf, verb), word),
    ]
    return sorted({one for one in known if one.startswith(word)})


def _level(keys: Sequence[str], word: str) -> list[str]:
    """Give the keys one dot further than a word: `budget.` first, then what it holds."""
    depth = word.count(".") + 1
    inner = {key.rpartition(".")[0] for key in keys}
    own = [key for key in keys if key.count(".") + 1 == depth]
    return [f"{key}." if key in inner else f"{key}=" for key in own]
