# Bash in a build of nixpkgs is compiled without completion.
compgen() { echo "$0: compgen: command not found" >&2; return 127; }
complete() { echo "$0: complete: command not found" >&2; return 127; }
compopt() { echo "$0: compopt: command not found" >&2; return 127; }
