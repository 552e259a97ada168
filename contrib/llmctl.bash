# SPDX-License-Identifier: MIT
# Bash completion of llmctl: commands, then their options and files. The commands are asked from
# llmctl itself; options are read from `llmctl COMMAND --help`, so neither can grow stale. `bench
# serve` and `bench memory` are commands of their own.

_llmctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
	local sub=()

	[[ $command == bench && ${COMP_WORDS[2]} == @(serve|memory) ]] && sub=("${COMP_WORDS[2]}")

	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$(llmctl help 2>/dev/null |
			sed -nE 's/^  ([a-z]+) .*/\1/p') help" -- "$cur")
		return
	fi
	case $prev in
	--backend)
		mapfile -t COMPREPLY < <(compgen -W 'auto cpu ref' -- "$cur")
		return
		;;
	--shape)
		mapfile -t COMPREPLY < <(compgen -W 'A B C E F G H I J' -- "$cur")
		return
		;;
	--kv-type)
		mapfile -t COMPREPLY < <(compgen -W 'f32 bf16 fp8' -- "$cur")
		return
		;;
	--prefix-cache)
		mapfile -t COMPREPLY < <(compgen -W 'off' -- "$cur")
		return
		;;
	--weights)
		mapfile -t COMPREPLY < <(compgen -W 'auto region anon' -- "$cur")
		return
		;;
	--swap)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(llmctl "$command" "${sub[@]}" --help 2>&1 |
			grep -oE '(^|[^a-z-])--?[a-z][a-z-]*' | grep -oE -- '--?[a-z][a-z-]*' | sort -u)" -- "$cur")
	elif [[ $command == bench && $COMP_CWORD -eq 2 ]]; then
		mapfile -t COMPREPLY < <(compgen -W 'load decode prefill memory serve' -- "$cur")
	elif [[ $command == model && $COMP_CWORD -eq 2 ]]; then
		mapfile -t COMPREPLY < <(compgen -W 'list load unload' -- "$cur")
	elif [[ $command == region && $COMP_CWORD -eq 2 ]]; then
		mapfile -t COMPREPLY < <(compgen -W 'list info destroy' -- "$cur")
	elif [[ $command == status && $prev != --* || $command == swap && $COMP_CWORD -eq 2 ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(find "${XDG_RUNTIME_DIR:-/run}/llmdev" /run/llmdev \
			-maxdepth 1 -name '*.sock' ! -name '*.next.sock' ! -name '*.prev.sock' 2>/dev/null | sed 's|.*/||; s|\.sock$||' | sort -u)" -- "$cur")
	else
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	fi
}
complete -F _llmctl llmctl
