"""``cat2 completion``: what makes a shell complete the words of ``cat2``.

The scripts only call ``cat2 __complete`` (`caterva2.cli.candidates`), so they need not be made again for a
new version, and know the names of what is published now.
"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["completion"]

_BASH = r"""# Completion of cat2 for bash: eval "$(cat2 completion bash)"
_cat2_complete() {
    local IFS=$'\n' found line
    COMPREPLY=()
    # bash cuts the line at : and = as well, so it is given as it is; the answer fits what bash has cut
    found=$("$1" __complete --line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ $? -eq 1 ]]; then
        compopt -o default -o filenames 2>/dev/null
        return
    fi
    while read -r line; do
        [[ -n $line ]] && COMPREPLY+=("${line%%$'\t'*}")
    done <<< "$found"
    compopt -o filenames 2>/dev/null
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace 2>/dev/null
}
complete -F _cat2_complete cat2 caterva2
"""

_ZSH = r"""#compdef cat2 caterva2
# Completion of cat2 for zsh: eval "$(cat2 completion zsh)", behind compinit
_cat2_complete() {
    local -a found open_values open_texts values texts
    local line value text
    found=(${(f)"$("${words[1]}" __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null; print $?)"})
    if [[ ${found[-1]} == 1 ]]; then
        compset -P '*='
        _files
        return
    fi
    found[-1]=()
    for line in $found; do
        value=${line%%$'\t'*} text=${line#*$'\t'}
        [[ -n $text ]] && text="$value  -- $text" || text=$value
        if [[ $value == */ ]]; then
            open_values+=($value) open_texts+=($text)
        else
            values+=($value) texts+=($text)
        fi
    done
    (( $#open_values )) && compadd -l -S '' -d open_texts -a open_values
    (( $#values )) && compadd -l -d texts -a values
}
if [[ ${funcstack[1]} == _cat2 ]]; then
    _cat2_complete "$@"
else
    compdef _cat2_complete cat2 caterva2
fi
"""

_FISH = r"""# Completion of cat2 for fish: cat2 completion fish > ~/.config/fish/completions/cat2.fish
function __cat2_complete
    set -l words (commandline -opc) (commandline -ct | string unescape; or commandline -ct)
    set -l found ($words[1] __complete -- $words[2..-1] 2>/dev/null)
    if test $status -eq 1
        set -l before (string match -r '^[^=]*=' -- $words[-1])
        string replace -r '^' -- "$before" (__fish_complete_path (string replace -- "$before" '' $words[-1]))
        return
    end
    test (count $found) -gt 0; and printf '%s\n' $found
end
complete -c cat2 -f -a '(__cat2_complete)'
complete -c caterva2 -f -a '(__cat2_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_WHERE = {
    "bash": 'put this into ~/.bashrc: eval "$(cat2 completion bash)"',
    "zsh": 'put this into ~/.zshrc, behind compinit: eval "$(cat2 completion zsh)"',
    "fish": "run: cat2 completion fish > ~/.config/fish/completions/cat2.fish",
}


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="For which shell.")], /
) -> None:
    """Print what makes a shell complete verbs, options and the names of datasets."""
    print(_SCRIPTS[shell], end="")
    if sys.stdout.isatty():
        print(_WHERE[shell], file=sys.stderr)
